"""Which values a tag has, for choosing one; the text is the same for every database."""

from __future__ import annotations

from costmw.store.base import Filter, TagScope
from costmw.store.row_select import Ask
from costmw.store.sql import Sql


def values_of_tag(
    sql: type[Sql], ask: Ask, key: str, scope: TagScope, contains: str, limit: int
) -> list[str]:
    """Values of `tag:<key>` that stand in a tag set with those of the scope, sorted."""
    asked = sql()
    if scope:
        asked.add("SELECT DISTINCT f.value FROM tags e JOIN facets f ON f.id = e.facet_id")
        asked.add("WHERE e.key_id = (SELECT n.id FROM facet_keys n WHERE n.key = ?)", key)
        asked.having_tags(scope)
    else:
        asked.add("SELECT f.value FROM facets f JOIN facet_keys n ON n.id = f.key_id")
        asked.add("WHERE n.key = ? AND EXISTS (SELECT 1 FROM tags t WHERE t.facet_id = f.id)", key)
    asked.having("f.value", Filter(key, "contains", (contains,)))
    asked.add("ORDER BY f.value LIMIT ?", limit)
    return [value for (value,) in ask(*asked.statement())]
