"""paygent: the SDK patched, a plan a user, without its backend.

`pre_call_estimate` is what its README names for caps that "must never be crossed".
"""

from __future__ import annotations

import functools
from pathlib import Path

from paygent import ModelCostRate, Paygent, PaygentLimitExceeded, PlanConfig

from benchmarks.peers.race import MODEL, USD_PER_MILLION_TOKENS, Capped, Race, run


@functools.cache
def _paygent(folder: str) -> Paygent:
    return Paygent.init(db_path=str(Path(folder, "paygent.db")))


def prepare(race: Race) -> Capped:
    """A user of this round."""
    rate = ModelCostRate(input=USD_PER_MILLION_TOKENS / 1000, output=USD_PER_MILLION_TOKENS / 1000)
    plan = PlanConfig(
        max_spend_per_period=float(race.cap), cost_rates={MODEL: rate}, pre_call_estimate=True
    )
    _paygent(race.folder).start_session(race.who, plan_config=plan)
    create = race.client().chat.completions.create
    return Capped(functools.partial(create, paygent_user_id=race.who), PaygentLimitExceeded)


if __name__ == "__main__":
    run(prepare)
