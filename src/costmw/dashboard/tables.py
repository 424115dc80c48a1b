"""What is displayed, as tables: the same values, named the same, in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal

from costmw.answers import Breakdown, Call, CallPage, Line, Row, Series, Sums
from costmw.dashboard.messages import Response
from costmw.dashboard.responses import csv_response
from costmw.transfer.cells import text_cell

_SUMS = tuple(Sums.model_fields)
_LINE = tuple(name for name in Line.model_fields if name != "value")
_CALL = tuple(name for name in Call.model_fields if name not in ("unit_prices_usd", "detail"))

Cell = str | int | float | None


def breakdown_table(answer: Breakdown) -> Response:
    """A row for each value, the others, and the total."""
    head = ("row", "value", "share", *_SUMS, *(f"previous_{name}" for name in _SUMS))
    return csv_response(
        f"costmw-breakdown-{_days(answer.start, answer.stop)}",
        (*head, "latency_p50_ms", "latency_p95_ms"),
        _breakdown_rows(answer),
    )


def _breakdown_rows(answer: Breakdown) -> Iterator[Sequence[Cell]]:
    for kind, row in (
        *(("value", row) for row in answer.rows),
        ("other", answer.other),
        ("total", answer.total),
    ):
        if row is not None:
            yield [kind, text_cell(row.value), row.share, *_sums(row), *_previous(row)]


def _sums(row: Row) -> list[Cell]:
    return [_cell(getattr(row.sums, name)) for name in _SUMS]


def _previous(row: Row) -> list[Cell]:
    before = row.previous
    sums = [None if before is None else _cell(getattr(before, name)) for name in _SUMS]
    return [*sums, row.latency_p50_ms, row.latency_p95_ms]


def series_table(answer: Series) -> Response:
    """A row for each value in each span of time."""
    head = ("start", "row", "value", *_LINE)
    first, last = answer.starts[0], answer.starts[-1]
    return csv_response(f"costmw-series-{_days(first, last)}", head, _series_rows(answer))


def _series_rows(answer: Series) -> Iterator[Sequence[Cell]]:
    lines = [*(("value", line) for line in answer.lines), ("other", answer.other)]
    for kind, line in (*lines, ("total", answer.total)):
        if line is None:
            continue
        for position, start in enumerate(answer.starts):
            numbers = [_cell(getattr(line, name)[position]) for name in _LINE]
            yield [start.isoformat(), kind, text_cell(line.value), *numbers]


def calls_table(answer: CallPage) -> Response:
    """A row for each call; its tags in columns of their own."""
    keys = sorted({key for call in answer.calls for key in call.tags})
    plain = [name for name in _CALL if name != "tags"]
    head = (*plain, *(text_cell(f"tag:{key}") for key in keys))
    rows = (
        [
            *(_cell(getattr(call, name)) for name in plain),
            *(text_cell(call.tags.get(key)) for key in keys),
        ]
        for call in answer.calls
    )
    return csv_response("costmw-calls", head, rows)


def _cell(value: object) -> Cell:
    match value:
        case None:
            return ""
        case Decimal():
            return format(value, "f")
        case bool() | int() | float():
            return value
        case datetime():
            return value.isoformat()
    return text_cell(str(value))


def _days(start: datetime, stop: datetime) -> str:
    return f"{start:%Y-%m-%d}-{stop:%Y-%m-%d}"
