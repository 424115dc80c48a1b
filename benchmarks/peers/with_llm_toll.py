"""llm-toll: its decorator with `max_budget`, in SQLite.

Processes share a Postgres, which its README names for "safe concurrent budget enforcement".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import llm_toll
from llm_toll.exceptions import BudgetExceededError

from benchmarks.peers.race import MODEL, USD_PER_MILLION_TOKENS, Capped, Race, run


def prepare(race: Race) -> Capped:
    """A project of this round."""
    usd = USD_PER_MILLION_TOKENS / 1_000_000
    llm_toll.default_registry.register_model(MODEL, usd, usd)
    url = race.postgres or str(Path(race.folder, f"{race.who}.db"))
    store = llm_toll.create_store(url=url)
    llm_toll.set_store(store)
    create = race.client().chat.completions.create

    def call(**request: Any) -> Any:
        return create(**request)

    async def acall(**request: Any) -> Any:
        return await create(**request)

    capped = llm_toll.track_costs(project=race.who, max_budget=float(race.cap))
    return Capped(capped(call if race.threads else acall), BudgetExceededError, store.close)


if __name__ == "__main__":
    run(prepare)
