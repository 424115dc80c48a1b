"""A ledger in plain Python: what every store has to answer, worked out the simple way."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from costmw.events import Amendment, Outcome, Record, Submission, UsageEvent
from costmw.store.base import Group, Query, Totals


@dataclass
class Kept:
    """An event as it was written, and its amendments in the order of their commits."""

    event: UsageEvent
    amendments: list[Amendment] = field(default_factory=list)
    pruned: bool = False

    @property
    def status(self) -> str:
        said = [a.status for a in self.amendments if a.status]
        return said[-1] if said else self.event.status

    @property
    def source(self) -> str:
        said = [a.price.source for a in self.amendments if a.price]
        return said[-1] if said else self.event.price.source

    @property
    def cost(self) -> int | None:
        cost = self.event.price.cost_pico_usd
        if (cost is None) + sum(a.unpriced for a in self.amendments) > 0:
            return None
        deltas = (a.cost_pico_usd + a.estimated_cost_pico_usd for a in self.amendments)
        return (cost or 0) + sum(deltas)

    def value(self, name: str) -> str | None:
        """What it is grouped under."""
        if name.startswith("tag:"):
            return self.event.tags.get(name[4:])
        own = {"status": self.status, "cost_source": self.source}
        return own[name] if name in own else getattr(self.event, name)

    def totals(self) -> Totals:
        event, usage, amendments = self.event, self.event.usage, self.amendments
        exact = event.status == "ok"
        cost = event.price.cost_pico_usd or 0
        sums = Totals(
            calls=1,
            requests=int(event.first_in_request),
            cost_pico_usd=cost if exact else 0,
            estimated_cost_pico_usd=0 if exact else cost,
            unpriced=int(event.price.cost_pico_usd is None),
            flagged=int(event.price.cost_pico_usd is not None and event.reason is not None),
            incomplete=int(self.status != "ok"),
            input_tokens=usage.input_tokens or 0,
            output_tokens=usage.output_tokens or 0,
            cache_read_input_tokens=usage.cache_read_input_tokens,
            cache_write_input_tokens=usage.cache_write_input_tokens,
            reasoning_output_tokens=usage.reasoning_output_tokens,
            latency_ms=event.latency_ms or 0,
            timed=int(event.latency_ms is not None),
        )
        for name in _AMENDED:
            changed = sum(getattr(amendment, name) for amendment in amendments)
            setattr(sums, name, getattr(sums, name) + changed)
        if event.request_id is not None:
            sums.cost_in_requests_pico_usd = sums.cost_pico_usd + sums.estimated_cost_pico_usd
        return sums


_AMENDED = (
    "cost_pico_usd",
    "estimated_cost_pico_usd",
    "unpriced",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
    "reasoning_output_tokens",
)


class Model:
    """What was committed, and the answers that follow from it."""

    def __init__(self) -> None:
        self.events: dict[UUID, Kept] = {}
        self.amendments: dict[UUID, list[Amendment]] = {}
        self.amendment_ids: set[UUID] = set()
        self.submissions: dict[tuple[str, str], Submission] = {}
        self.outcomes: Counter[tuple[int, str, str | None, str | None, tuple[tuple[str, str], ...]]]
        self.outcomes = Counter()

    def write(self, records: Iterable[Record]) -> None:
        """Commit records, in their order."""
        for record in records:
            match record:
                case UsageEvent():
                    self._write_event(record)
                case Amendment() if record.id not in self.amendment_ids:
                    self.amendment_ids.add(record.id)
                    of_event = self.amendments.setdefault(record.event_id, [])
                    kept = self.events.get(record.event_id)
                    if kept is None or not kept.pruned:
                        of_event.append(record)
                case Submission():
                    self._submit(record)
                case Outcome():
                    hour = int(record.at.timestamp()) // 3600
                    tags = tuple(sorted(record.tags.items()))
                    self.outcomes[hour, record.kind, record.provider, record.model, tags] += 1

    def _write_event(self, event: UsageEvent) -> None:
        if event.id in self.events:
            return
        key = (event.provider or "", event.submitted_as or "")
        if event.submitted_as and (asked := self.submissions.get(key)):
            event = replace(
                event,
                created_at=asked.created_at,
                tags=asked.tags,
                request_id=asked.request_id,
                first_in_request=asked.first_in_request,
                api_key_id=asked.api_key_id,
            )
            self.submissions[key] = replace(asked, first_in_request=False)
        self.events[event.id] = Kept(event, self.amendments.setdefault(event.id, []))

    def _submit(self, submission: Submission) -> None:
        known = submission
        if submission.alias_of is not None:
            found = self.submissions.get((submission.provider or "", submission.alias_of))
            if found is None:
                return
            known = found
        self.submissions.setdefault((submission.provider or "", submission.result_id), known)

    def prune(self, before: datetime) -> int:
        """Drop rows of calls before a moment; their sums stay as they are."""
        dropped = 0
        for kept in self.events.values():
            if kept.event.created_at < before and not kept.pruned:
                kept.pruned = True
                kept.amendments = list(kept.amendments)
                self.amendments[kept.event.id] = []
                dropped += 1
        return dropped

    def forget(self, key: str, value: str, substitute: str) -> None:
        """Put another value in the place of one."""

        def changed(tags: Mapping[str, str]) -> dict[str, str]:
            return {k: substitute if (k, v) == (key, value) else v for k, v in tags.items()}

        for kept in self.events.values():
            kept.event = replace(kept.event, tags=changed(kept.event.tags))
        for known, asked in self.submissions.items():
            self.submissions[known] = replace(asked, tags=changed(asked.tags))
        counted, self.outcomes = self.outcomes, Counter()
        for (*what, tags), count in counted.items():
            self.outcomes[*what, tuple(changed(dict(tags)).items())] += count  # type: ignore[index]

    def rows(self) -> dict[UUID, tuple[int | None, str, int]]:
        """Cost, status and number of amendments of each row that is there."""
        return {
            event_id: (kept.cost, kept.status, len(kept.amendments))
            for event_id, kept in self.events.items()
            if not kept.pruned
        }

    def totals(self, query: Query, *, with_pruned: bool) -> dict[Group, Totals]:
        """Sums by group."""
        groups: dict[Group, Totals] = {}
        for kept in self.events.values():
            created_at, tags = kept.event.created_at, kept.event.tags
            wanted = (*query.scope.items(), *query.where.items())
            if kept.pruned and not with_pruned:
                continue
            if not query.start <= created_at < query.stop:
                continue
            if any(tags.get(key) != value for key, value in wanted):
                continue
            values = tuple(kept.value(name) for name in query.group_by)
            position = (bisect_right(query.buckets, created_at) - 1,) if query.buckets else ()
            groups.setdefault((*position, *values), Totals()).add(kept.totals())
        groups = {group: sums for group, sums in groups.items() if sums != Totals()}
        if not query.group_by and not query.buckets:
            groups.setdefault((), Totals())
        return groups
