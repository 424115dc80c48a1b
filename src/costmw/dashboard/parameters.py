"""The parameters of requests: what each one may be, read and documented from one place."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, TypeVar, get_args
from urllib.parse import parse_qsl, unquote
from zoneinfo import available_timezones

from costmw.dashboard.parameter import Parameter, choice, text_like, whole
from costmw.dashboard.problems import HttpProblem
from costmw.question import (
    AUTO,
    MOST_VALUES,
    TOP,
    Compare,
    Every,
    Metric,
    Question,
    RangeName,
)
from costmw.store.base import DIMENSIONS, Filter, Operator

MOST_FIELDS = 100
"""Parameters in one request at most."""

MOST_FILTERS = 20
"""Filters in one question at most."""

MOST_CALLS = 200
"""Calls in one answer at most."""

MOST_OFFERED = 200
"""Values to choose from in one answer at most."""

T = TypeVar("T")

_KEY = rf"({'|'.join(DIMENSIONS)}|tag:[^:]{{1,640}})"
_TEXT = r"[\s\S]{0,256}"
_KEYS = f"{', '.join(DIMENSIONS)}, or tag:<key> with the tag's key percent-encoded"


def _key_of(text: str) -> str:
    return f"tag:{unquote(text[4:])}" if text.startswith("tag:") else text


def _by_of(text: str) -> str | None:
    return None if text == "none" else AUTO if text == AUTO else _key_of(text)


def _zone_of(texts: Sequence[str]) -> str | None:
    if texts and texts[-1] not in time_zones():
        raise ValueError(texts[-1])
    return texts[-1] if texts else None


@functools.cache
def time_zones() -> frozenset[str]:
    """The time zones that this system knows; looked for when first asked."""
    return frozenset(available_timezones())


def _filters_of(texts: Sequence[str]) -> tuple[Filter, ...]:
    if len(texts) > MOST_FILTERS:
        raise ValueError(texts)
    filters: dict[object, Filter] = {}
    for number, text in enumerate(texts):
        found = _FILTER.fullmatch(text)
        if found is None:
            raise ValueError(text)
        key = _key_of(found["key"])
        if found["valueless"]:
            filters[number] = Filter(key, "set" if found["valueless"] == "set" else "unset")
            continue
        # Several values that a call may have of one key: any of them will do.
        place = key if found["op"] == "is" else number
        known = filters[place].values if place in filters else ()
        values = dict.fromkeys((*known, found["value"]))
        filters[place] = Filter(key, _OPERATORS[found["op"]], tuple(values))
    return tuple(filters.values())


def _needed_key(texts: Sequence[str]) -> str:
    if not texts or not re.fullmatch(_KEY, texts[-1]):
        raise ValueError(texts)
    return _key_of(texts[-1])


_FILTER_PATTERN = rf"{_KEY}:((is|not|contains):{_TEXT}|set|unset)"
_FILTER = re.compile(
    rf"(?P<key>{_KEY}):(?:(?P<op>is|not|contains):(?P<value>{_TEXT})|(?P<valueless>set|unset))"
)
_OPERATORS: Mapping[str, Operator] = {"is": "is", "not": "not", "contains": "contains"}

_RANGES: tuple[RangeName, ...] = get_args(RangeName)
_IN_A_RANGE = "together with range=custom"

RANGE: Parameter[RangeName] = choice(
    "range",
    [name for name in _RANGES if name != "all"],
    "30d",
    "Which days: the last ones, today included, a month, or those from `from` to `to`.",
)
RANGE_OF_CALLS: Parameter[RangeName] = choice(
    "range", _RANGES, "all", "Which days, as elsewhere, or all."
)
FROM = text_like(
    "from",
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    "The first day, with range=custom only.",
    f"a day such as 2026-10-01, {_IN_A_RANGE}",
    date.fromisoformat,
    None,
    {"format": "date"},
)
TO = text_like(
    "to",
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    "The day after the last one, with range=custom only.",
    f"a day such as 2026-11-01, {_IN_A_RANGE}",
    date.fromisoformat,
    None,
    {"format": "date"},
)
TZ: Parameter[str | None] = Parameter(
    "tz",
    "The time zone that days are counted in; the ledger's when left out.",
    {"type": "string"},
    _zone_of,
    "the IANA name of a time zone, such as Europe/Berlin",
)
EVERY = choice(
    "every",
    get_args(Every),
    "auto",
    "How long the spans of a series are; auto: an hour up to 2 days, a day up to 100, a month.",
)
COMPARE = choice("compare", get_args(Compare), "previous", "With what sums are compared.")
FILTER: Parameter[tuple[Filter, ...]] = Parameter(
    "filter",
    "What calls must have, as `<key>:<op>:<value>` or `<key>:set` or `<key>:unset`. The key is "
    f"one of {_KEYS}. Several values with `is` for one key: any of them; all else must hold.",
    {
        "type": "array",
        "items": {"type": "string", "pattern": f"^{_FILTER_PATTERN}$"},
        "maxItems": MOST_FILTERS,
        "examples": [["model:is:gpt-5", "tag:team:unset"]],
    },
    _filters_of,
    "<key>:<op>:<value> with one of is, not, contains, or <key>:set or <key>:unset, such as "
    f"model:is:gpt-5 or tag:team:unset, {MOST_FILTERS} times at most; the key is one of {_KEYS}",
)
BY: Parameter[str | None] = text_like(
    "by",
    rf"({_KEY}|none|{AUTO})",
    f"What values are of: {_KEYS}; none for no values; when left out the first of the common "
    "tags that is in use, or the model.",
    f"one of {_KEYS}, or none",
    _by_of,
    AUTO,
    {"default": AUTO},
)
METRIC = choice("metric", get_args(Metric), "cost", "What values are ranked by.")
TOP_VALUES = whole("top", 1, MOST_VALUES, TOP, "Values that are named; the rest is summed.")
FORMAT = choice("format", ("json", "csv"), "json", "What the answer is written as.")
LIMIT = whole("limit", 1, MOST_CALLS, 50, "Calls in the answer at most.")
BEFORE = text_like(
    "before",
    "[0-9a-f]{16}",
    "Where to go on: `before` of the answer that came first.",
    "what an earlier answer has as before",
    str,
    None,
)
KEY = Parameter(
    "key",
    f"What values are of: {_KEYS}.",
    {"type": "string", "pattern": f"^{_KEY}$"},
    _needed_key,
    f"one of {_KEYS}",
    is_needed=True,
)
CONTAINS = text_like(
    "contains",
    _TEXT,
    "A part that values must have; A-Z are like a-z.",
    "a text of at most 256 characters",
    str,
    "",
    {"default": ""},
)
OFFERED = whole("limit", 1, MOST_OFFERED, 50, "Values in the answer at most.")
MONTH = text_like(
    "month",
    r"[0-9]{4}-(0[1-9]|1[0-2])",
    "The month; the last one that is over when left out.",
    "a month such as 2026-10",
    str,
    "",
)
REPORT_FORMAT = choice("format", ("html", "md"), "html", "What the report is written as.")

SPAN = (FROM, TO, TZ)
VIEW = (RANGE, *SPAN, EVERY, COMPARE, FILTER, BY, METRIC, TOP_VALUES)
"""The parameters of every view."""


class Parameters:
    """The parameters of one query string; those that nobody reads are ignored.

    Raises:
        HttpProblem: 400, for too many, and whenever one cannot be read, which it names.
    """

    def __init__(self, query: str) -> None:
        try:
            self._given = parse_qsl(query, keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError:
            detail = f"The query has too many parameters; at most {MOST_FIELDS} are allowed."
            raise HttpProblem(400, detail) from None

    def read(self, parameter: Parameter[T]) -> T:
        """What one parameter says."""
        try:
            return parameter.read([text for name, text in self._given if name == parameter.name])
        except ValueError:
            raise HttpProblem(
                400,
                f"{parameter.name} must be {parameter.allowed}.",
                parameter=parameter.name,
            ) from None

    def question(self) -> Question:
        """What is asked of a view."""
        return Question(
            **self._span(self.read(RANGE)),
            every=self.read(EVERY),
            compare=self.read(COMPARE),
            filters=self.read(FILTER),
            by=self.read(BY),
            metric=self.read(METRIC),
            top=self.read(TOP_VALUES),
        )

    def question_of_calls(self) -> Question:
        """Which calls are asked for."""
        return Question(**self._span(self.read(RANGE_OF_CALLS)), filters=self.read(FILTER))

    def _span(self, name: RangeName) -> dict[str, Any]:
        first, stop = self.read(FROM), self.read(TO)
        is_custom = name == "custom"
        return {
            "range": name,
            "first": first if is_custom else None,
            "stop": stop if is_custom else None,
            "zone": self.read(TZ),
        }
