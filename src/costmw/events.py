"""The nouns of one call: what it used, what that cost, and the row that keeps both.

Names follow the OpenTelemetry GenAI conventions: input tokens include those read
from and written to a cache, output tokens include reasoning.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal
from uuid import UUID

Status = Literal["ok", "estimated", "incomplete", "unmetered"]
"""How far the usage of a row is known.

`ok`: read exactly. `estimated`: the call ended, its usage was worked out.
`incomplete`: the call did not reach its end. `unmetered`: nothing can be said.
"""

CostSource = Literal["provider", "list", "override", "none"]
"""Where a cost comes from: the provider's own figure, the price list, the user's price, nowhere."""

OutcomeKind = Literal["error", "retry", "refused", "capture_fault"]
"""What happened in an attempt that bills nothing."""

NOTHING: Mapping[str, int] = MappingProxyType({})
NO_TAGS: Mapping[str, str] = MappingProxyType({})


def new_id() -> UUID:
    """Make a UUIDv7 (RFC 9562): sortable by time, random enough to be made anywhere."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = (milliseconds & (2**48 - 1)) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call used, in tokens; None where the provider did not say.

    `detail` holds counts that only some calls have, under the unit names of
    genai-prices: `cache_write_5m_tokens`, `cache_write_1h_tokens`,
    `input_audio_tokens`, `web_searches` and so on.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_output_tokens: int = 0
    detail: Mapping[str, int] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True)
class Price:
    """What a call cost and how that is known.

    `ref` names the price: the base's version and model, or the override.
    `units` are the unit prices that were applied, in USD per million tokens (or as
    the unit says), as decimal strings. `reason` says why there is no cost, or what
    the cost leaves out.
    """

    cost_pico_usd: int | None
    source: CostSource
    ref: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One billed, or possibly billed, attempt; never changed once written.

    `created_at` is when the call started, in UTC: it decides the period that the
    cost falls in. Durations are monotonic, in milliseconds. `reason` explains a
    status other than `ok`, a missing cost, or what a cost leaves out. `price_context` are
    the facts of the response that chose the price. `submitted_as` is
    the provider's id under which the result was asked for, where it came later: who
    asked, and when, is then what the `Submission` of that id says. `amendments` is how
    many corrections are in it.
    """

    id: UUID
    created_at: datetime
    operation: str
    provider: str | None
    request_model: str | None
    response_model: str | None
    usage: Usage
    price: Price
    status: Status
    tags: Mapping[str, str]
    api: str | None = None
    reason: str | None = None
    request_id: UUID | None = None
    first_in_request: bool = False
    latency_ms: int | None = None
    time_to_first_chunk_ms: int | None = None
    api_key_id: str | None = None
    response_id: str | None = None
    trace_id: str | None = None
    price_context: Mapping[str, str] = field(default_factory=lambda: NO_TAGS)
    submitted_as: str | None = None
    amendments: int = 0

    @property
    def model(self) -> str | None:
        """The model that answered, or the one asked for when the answer does not say."""
        return self.response_model or self.request_model


@dataclass(frozen=True, slots=True)
class Amendment:
    """A correction of one event: differences to add, and why.

    A field that is None or 0 changes nothing. `unpriced` is -1 when this gives a
    cost to an event that had none.
    """

    event_id: UUID
    reason: str
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: UUID = field(default_factory=new_id)
    status: Status | None = None
    price: Price | None = None
    cost_pico_usd: int = 0
    estimated_cost_pico_usd: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Submission:
    """Who asked for a result that comes later: a background response, a batch.

    Kept under the provider's id of the result for 90 days, for whichever process reads it.
    `alias_of` says that the provider gave the same submission a second id.
    """

    provider: str | None
    result_id: str
    created_at: datetime
    tags: Mapping[str, str]
    request_id: UUID | None = None
    first_in_request: bool = False
    api_key_id: str | None = None
    alias_of: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """An attempt that bills nothing, to be counted by the hour.

    `tags` are the call's route and tenant only, so that the counters stay few. One that is
    sent more than once is counted once, by its `id`.
    """

    kind: OutcomeKind
    at: datetime
    provider: str | None
    model: str | None
    tags: Mapping[str, str]
    id: UUID = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call that is about to be sent may cost at most, to be held in its budgets.

    `event` is the row that is made of it when nobody hears of the call again: its id is the
    hold's, its tags and `created_at` say which budgets, and which periods of them. `checked`
    are the budgets whose limits are asked; the others only keep the count. `unpriced` says
    that the model has no price, and `pico_usd` goes by the dearest one of its provider.
    """

    event: UsageEvent
    pico_usd: int
    expires_at: datetime
    checked: tuple[str, ...]
    unpriced: bool = False

    @property
    def id(self) -> UUID:
        """The id of the hold, which is that of the call's row."""
        return self.event.id

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags of the call."""
        return self.event.tags


@dataclass(frozen=True, slots=True)
class Release:
    """A hold is given back: its call billed nothing."""

    id: UUID


@dataclass(frozen=True, slots=True)
class Renewal:
    """A hold lasts longer: its call is still in flight, or its result comes later.

    `as_id` gives it the id of the row that is to settle it, where that is another one.
    """

    id: UUID
    expires_at: datetime
    as_id: UUID | None = None


Record = UsageEvent | Amendment | Submission | Outcome | Reservation | Release | Renewal
"""Whatever the writer commits."""
