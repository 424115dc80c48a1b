"""budget-guard-llm: `guard` around the client, a limit a user, held for calls in flight."""

from __future__ import annotations

import budget_guard

from benchmarks.peers.race import MODEL, USD_PER_MILLION_TOKENS, Capped, Race, run


def prepare(race: Race) -> Capped:
    """A user of this round; its README has no stricter mode."""
    price = {"input": USD_PER_MILLION_TOKENS, "output": USD_PER_MILLION_TOKENS}
    budget_guard.default_pricing().set("openai", MODEL, price)
    budget_guard.configure(limits=budget_guard.Limits(per_user=race.cap), on_unknown_model="raise")
    client = budget_guard.guard(race.client(), user=race.who)
    return Capped(client.chat.completions.create, budget_guard.BudgetExceeded)


if __name__ == "__main__":
    run(prepare)
