"""Answers about single calls, and about attempts that bill nothing."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from costmw.answers.base import Answer, Usd


class Call(Answer):
    """One recorded call. `cost_usd` is None when unknown; `reason` says why."""

    id: UUID
    created_at: datetime
    operation: str
    provider: str | None
    model: str | None
    status: str
    cost_usd: Usd | None
    cost_source: str
    price_ref: str | None
    unit_prices_usd: dict[str, str]
    reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    reasoning_output_tokens: int
    detail: dict[str, int]
    latency_ms: int | None
    time_to_first_chunk_ms: int | None
    tags: dict[str, str]
    api_key_id: str | None
    response_id: str | None


class OutcomeRow(Answer):
    """How often something that bills nothing happened."""

    kind: str
    provider: str | None
    model: str | None
    count: int


class CallLine(Answer):
    """One line of what a call cost: `quantity` at `unit_price_usd` for so many (`per`).

    `unit` is the name that the price list has for the price, `label` a name to read.
    """

    unit: str
    label: str
    quantity: str
    per: str
    unit_price_usd: Usd
    cost_usd: Usd


class CallAmendment(Answer):
    """A correction: `status` is the new one, None when it stayed."""

    created_at: datetime
    reason: str
    status: str | None
    cost_usd_before: Usd | None
    cost_usd_after: Usd | None


class CallDetail(Call):
    """One call with its whole arithmetic: the lines add up to its cost.

    `lines` is None where the cost is no product of counts and prices; `lines_reason` says why.
    `price_date` is from when on the price holds, where that is known.
    """

    lines: list[CallLine] | None
    lines_reason: str | None
    amendments: list[CallAmendment]
    price_date: date | None


class CallPage(Answer):
    """Some calls, the newest first; `before` is where older ones go on, None at the end."""

    calls: list[Call]
    before: str | None


class Values(Answer):
    """Values to choose from, sorted."""

    key: str
    values: list[str]
