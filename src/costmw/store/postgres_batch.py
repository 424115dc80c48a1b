"""A batch of records on its way into Postgres, and what was found of them there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from costmw.events import Amendment, Outcome, Record, Submission, UsageEvent
from costmw.store.charges import Written
from costmw.store.interned import InternedRow
from costmw.store.micros import micros
from costmw.store.postgres_intern import Wanted

DATED_WITHIN = timedelta(minutes=1)
"""How near a UUIDv7 is to its event's moment, where it says when."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked for a call, and when; the columns of `submissions` after its key."""

    created_at: datetime
    tag_set_id: int
    request_id: UUID | None
    first_in_request: int
    api_key_id: str | None


@dataclass(frozen=True, slots=True)
class Placed:
    """A new event, who asked for it, and its row of `call_kinds`."""

    event: UsageEvent
    asked: Asked
    row: InternedRow

    def is_undated(self) -> bool:
        """Whether its id does not say when it was."""
        said = moment_of(self.event.id)
        return said is None or abs(said - self.asked.created_at) > DATED_WITHIN


@dataclass(slots=True)
class Batch:
    """Records by what they are, and what was found of them.

    Submissions are written first and amendments last, whatever their order: it says no
    more than who came before whom in memory.
    """

    events: list[UsageEvent] = field(default_factory=list)
    by_id: dict[UUID, UsageEvent] = field(default_factory=dict)
    amendments: list[Amendment] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    known_ids: set[UUID] = field(default_factory=set)
    submitted: dict[tuple[str, str], Asked] = field(default_factory=dict)
    changes: dict[UUID, list[Sequence[Any]]] = field(default_factory=dict)
    call_kinds: dict[UUID, InternedRow] = field(default_factory=dict)
    placed: list[Placed] = field(default_factory=list)
    counted_in_request: list[tuple[str, str]] = field(default_factory=list)
    budgets_epoch: str = ""

    def written(self) -> Written:
        """What of it is new, as far as balances go by it."""
        return Written(
            new=[placed.event for placed in self.placed],
            known=[event for event in self.events if event.id in self.known_ids],
            amendments=self.amendments,
        )

    @classmethod
    def of(cls, records: Iterable[Record]) -> Batch:
        """Sort records by what they are."""
        batch = cls()
        for record in records:
            match record:
                case UsageEvent():
                    micros(record.created_at)  # a moment without a time zone is refused
                    batch.events.append(record)
                    batch.by_id.setdefault(record.id, record)
                case Amendment():
                    batch.amendments.append(record)
                case Submission():
                    batch.submissions.append(record)
                case Outcome():
                    batch.outcomes.append(record)
        return batch

    def wanted(self) -> Wanted:
        """All that the records refer to."""
        wanted = Wanted()
        for event in self.by_id.values():
            wanted.add_tags(event.tags)
            self.call_kinds[event.id] = wanted.add_call(event)
        for submission in self.submissions:
            wanted.add_tags(submission.tags)
        for outcome in self.outcomes:
            wanted.add_tags(outcome.tags)
        for amendment in self.amendments:
            if amendment.price is not None:
                wanted.add_price(amendment.price)
        return wanted

    def skip_amendments(self, known: set[UUID]) -> None:
        """Leave out amendments that are there already, or twice in this batch."""
        new = {a.id: a for a in reversed(self.amendments) if a.id not in known}
        self.amendments = list(reversed(new.values()))


_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = int(datetime(9000, 1, 1, tzinfo=UTC).timestamp() * 1000)


def moment_of(event_id: UUID) -> datetime | None:
    """When an id was made; None when it does not say."""
    milliseconds = event_id.int >> 80
    if event_id.version != 7 or milliseconds > _LATEST_MS:
        return None
    return _UNIX_EPOCH + timedelta(milliseconds=milliseconds)
