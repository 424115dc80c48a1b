"""Tells which table a row is from, by its values alone.

Where pages are damaged, nothing says which table a page belongs to. The tables of a
ledger differ in how many values a row has, and of which kinds.
"""

from __future__ import annotations

from costmw.store.sqlite_pages import Row

SHAPES = {
    # n: NULL, which stands for the rowid; i: integer, B: 16 bytes, s: text; +: or NULL
    "facet_keys": "r: n s i",
    "facets": "r: n i s",
    "tag_sets": "r: n B s",
    "prices": "r: n B s s+ s",
    "call_kinds": "r: n B s s+ s+ s+ s+ s+ s+",
    "usage_events": "r: n B i B+ i i i+ i+ i i i s+ i+ i s s+ i+ i+ i s+ s+",
    "amendments": "r: n B B i s s+ i+ i i i i i i i i",
    "sqlite_sequence": "r: s i",
    "settings": "-: s s",
    "submissions": "-: s s i i B+ i s+",
    "call_outcomes": "-: i s s s i i",
    "rollups": "-: " + "i " * 28,
    "rollup_histograms": "-: i i i i",
    "budgets": "-: s s s i",
    "assumed_charges": "-: s i i i s i",
}
"""The values of a row, in the order that they are stored; `r` of a table with a rowid."""

MADE_ANEW = frozenset(
    {
        *("tags", "rollup_kinds", "rollup_watermarks", "balances"),
        *("holds", "alerts", "alert_channels"),
    }
)
"""Tables whose rows follow from those of others, end with the calls that are in flight, or are
told once more."""

_KINDS = {"n": type(None), "i": int, "B": bytes, "s": str}

_BY_LENGTH: dict[tuple[bool, int], list[tuple[str, list[tuple[type, ...]]]]] = {}
for _name, _shape in SHAPES.items():
    _has_rowid, _, _columns = _shape.partition(": ")
    _types: list[tuple[type, ...]] = [
        (_KINDS[code[0]], type(None)) if code.endswith("+") else (_KINDS[code],)
        for code in _columns.split()
    ]
    _BY_LENGTH.setdefault((_has_rowid == "r", len(_types)), []).append((_name, _types))


def table_of(row: Row) -> str | None:
    """The table that a row is from; None when it is from none that is recovered."""
    values = row.values
    for name, types in _BY_LENGTH.get((row.rowid is not None, len(values)), ()):
        if all(
            type(value) in allowed and (type(value) is not bytes or len(value) == 16)
            for value, allowed in zip(values, types, strict=True)
        ):
            return name
    return None
