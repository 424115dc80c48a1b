"""Made-up events of a busy app, for the benchmarks of the ledger.

12 models, 50 tenants, 2,000 users, 20 features, 30 routes and 3 environments over 30
days; a user belongs to one tenant and a route serves one feature, as in most apps.
`independent=True` draws all of them apart, which makes nearly every tag set a new one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from costmw.events import Price, Usage, UsageEvent

MODELS = tuple(f"model-{n:02d}-2026-05-01" for n in range(12))
TENANTS, USERS, FEATURES, ROUTES = 50, 2_000, 20, 30
ENVIRONMENTS = ("production", "staging", "development")
DAYS = 30

START = datetime(2026, 10, 1, tzinfo=UTC)

_PRICES = tuple(
    Price(None, "list", f"{name} 2026-09", {"input_mtok": "0.25", "output_mtok": "2"})
    for name in MODELS
)


def events(
    count: int,
    *,
    start: datetime = START,
    days: float = DAYS,
    seed: int = 1,
    independent: bool = False,
) -> Iterator[UsageEvent]:
    """Make so many events, evenly over the days from `start` on, oldest first."""
    rng = random.Random(seed)
    step = timedelta(days=days) / count
    for n in range(count):
        user = min(int(rng.paretovariate(1.1) * 20) - 20, USERS - 1)
        user = user if rng.random() < 0.7 else rng.randrange(USERS)
        tenant = rng.randrange(TENANTS) if independent else user % TENANTS
        route = int(rng.triangular(0, ROUTES, 5)) % ROUTES
        feature = rng.randrange(FEATURES) if independent else route % FEATURES
        environment = ENVIRONMENTS[0 if rng.random() < 0.9 else rng.randrange(1, 3)]
        model = rng.randrange(len(MODELS))
        moment = start + n * step
        yield UsageEvent(
            id=_uuid7(moment, rng),
            created_at=moment,
            operation="chat",
            provider="openai",
            request_model=MODELS[model][:8],
            response_model=MODELS[model],
            usage=Usage(
                input_tokens=rng.randrange(50, 4_000),
                output_tokens=rng.randrange(5, 900),
                cache_read_input_tokens=rng.randrange(50),
            ),
            price=replace(_PRICES[model], cost_pico_usd=rng.randrange(10**6, 10**10)),
            status="ok",
            tags={
                "environment": environment,
                "feature": f"feature-{feature:02d}",
                "route": f"/api/v1/route-{route:02d}",
                "team": f"team-{feature % 5}",
                "tenant": f"tenant-{tenant:02d}",
                "user": f"user-{user:04d}",
            },
            api="openai.chat",
            request_id=_uuid7(moment, rng),
            first_in_request=True,
            latency_ms=rng.randrange(200, 9_000),
            time_to_first_chunk_ms=rng.randrange(100, 900),
            api_key_id="0123456789abcdef",
            response_id=f"chatcmpl-{rng.getrandbits(116):029x}",
            price_context={"service_tier": "default"},
        )


def a_call(n: int) -> Any:
    """The arguments of `meter.record()` for a call of such an app."""
    return {
        "model": "gpt-5-mini",
        "provider": "openai",
        "input_tokens": 1_200 + n % 50,
        "output_tokens": 345,
        "tags": {
            "environment": ENVIRONMENTS[0],
            "feature": f"feature-{n % FEATURES}",
            "route": f"/api/v1/route-{n % ROUTES}",
            "team": f"team-{n % 5}",
            "tenant": f"tenant-{n % TENANTS}",
            "user": f"user-{n % USERS}",
        },
    }


def _uuid7(moment: datetime, rng: random.Random) -> UUID:
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(int=(milliseconds << 80) | (7 << 76) | (rng.getrandbits(76) & ~(3 << 62)) | 2 << 62)
