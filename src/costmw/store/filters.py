"""What filters say, before any database is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from string import ascii_lowercase, ascii_uppercase
from typing import get_args

from costmw.errors import ConfigError
from costmw.store.base import DIMENSIONS, Filter, Operator, Query, TagScope

VALUES_AT_MOST = 500
"""Values of all filters of a question: some SQLites bind few parameters."""

NAMES = f"{', '.join(DIMENSIONS)} or 'tag:<key>'"
"""What can be grouped and filtered by, in words."""

_SMALL = str.maketrans(ascii_uppercase, ascii_lowercase)


def filters_of(query: Query) -> list[Filter]:
    """All that calls must have for a question: of its scope, and of what is asked."""
    return [*_of_tags(query.scope), *_of_tags(query.where), *query.filters]


def _of_tags(tags: TagScope) -> list[Filter]:
    return [Filter(f"tag:{key}", "is", (value,)) for key, value in tags.items()]


def needs_value(wanted: Filter) -> bool:
    """Whether only calls pass that have such a key."""
    return wanted.op not in ("not", "unset")


def needs_tag(wanted: Filter) -> bool:
    """Whether only calls pass that have such a tag: their tag sets tell of all of them."""
    return wanted.key.startswith("tag:") and needs_value(wanted)


def told_of(wanted: Filter) -> Filter:
    """The filter that passes the values which this one speaks of, be they wanted or not."""
    opposite: dict[Operator, Operator] = {"not": "is", "unset": "set"}
    return replace(wanted, op=opposite.get(wanted.op, wanted.op))


def small(text: str) -> str:
    """A-Z as a-z; other letters stay, since databases do not agree about them."""
    return text.translate(_SMALL)


def check_filters(filters: Sequence[Filter]) -> None:
    """Raise a `ConfigError` for a filter that cannot be."""
    for wanted in filters:
        if not wanted.key.startswith("tag:") and wanted.key not in DIMENSIONS:
            raise ConfigError(f"cannot filter by {wanted.key!r}; use one of {NAMES}")
        if wanted.op not in get_args(Operator):
            raise ConfigError(
                f"a filter of {wanted.key} cannot be {wanted.op!r}; use one of "
                f"{', '.join(get_args(Operator))}"
            )
        if (wanted.op in ("set", "unset")) == bool(wanted.values):
            needs = "no values" if wanted.values else "one value or more"
            raise ConfigError(f"the filter {wanted.op!r} of {wanted.key} takes {needs}")
    if sum(len(wanted.values) for wanted in filters) > VALUES_AT_MOST:
        raise ConfigError(f"filters have at most {VALUES_AT_MOST} values altogether")
