"""What the page may ask, all of it confined to who asks."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from costmw import __version__
from costmw.answers import Answer, Call, Overview
from costmw.dashboard.auth import Principal
from costmw.meter import Meter, MeterStatus


class CallPage(Answer):
    """Some calls, the newest first; `before` is where older ones go on, None at the end."""

    calls: list[Call]
    before: int | None


class Status(Answer):
    """Who is asking, and how recording goes in the process that answers.

    `meter` is None for those with a scope: its numbers are everybody's.
    """

    version: str
    enabled: bool
    scope: dict[str, str]
    can_edit: bool
    meter: MeterStatus | None


class Questions:
    """The questions of one principal; here, and nowhere else, the scope is applied."""

    def __init__(self, meter: Meter, principal: Principal) -> None:
        self._meter = meter
        self._reports = meter.reports
        self._principal = principal
        self._scope = principal.scope

    def overview(self, tag: str) -> Overview:
        """Everything for the first screen; `tag` is the key that the tag view groups by."""
        return self._reports.overview(tag=tag, scope=self._scope)

    def calls(self, limit: int, before: int | None) -> CallPage:
        """The newest calls, or those before a position."""
        found = self._reports.calls(limit, before=before, scope=self._scope)
        return CallPage(
            calls=[call for _, call in found],
            before=found[-1][0] if len(found) == limit else None,
        )

    def call(self, call_id: UUID) -> Call | None:
        """One call, or None when there is none that this principal may see."""
        return self._reports.call(call_id, scope=self._scope)

    def status(self) -> Status:
        """Who is asking, and how recording goes."""
        return Status(
            version=__version__,
            enabled=self._meter.enabled,
            scope=dict(self._scope),
            can_edit=self._principal.can_edit,
            meter=None if self._scope else self._meter.status(),
        )

    def version(self, moment: datetime, position: int | None = None) -> tuple[object, ...]:
        """What an answer at this moment depends on: the same means that nothing is new.

        Days begin, budgets start over and hourly counters grow without a new position,
        so an answer holds for its minute at most.
        """
        if position is None:
            position = self._reports.position()
        return position, int(moment.timestamp() // 60), sorted(self._scope.items())
