"""costmw: a budget that blocks, in a ledger that processes share."""

from __future__ import annotations

from benchmarks.peers.race import MODEL, USD_PER_MILLION_TOKENS, Capped, Race, run
from costmw import Budget, BudgetExceeded, Config, Meter, PriceOverride

_USD = str(USD_PER_MILLION_TOKENS)
_PRICE = PriceOverride(MODEL, {"input": _USD, "output": _USD})


def prepare(race: Race) -> Capped:
    """A ledger of this round."""
    meter = Meter(
        f"sqlite:///{race.folder}/{race.who}.db",
        budgets=[Budget("cap", limit=race.cap, period="total", action="block")],
        config=Config(prices=(_PRICE,)),
    )
    meter.start()
    client = meter.instrument(race.client(), provider="openai")
    return Capped(client.chat.completions.create, BudgetExceeded, meter.close)


if __name__ == "__main__":
    run(prepare)
