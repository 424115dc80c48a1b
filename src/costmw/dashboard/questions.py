"""What the page may ask, all of it confined to who asks."""

from __future__ import annotations

from uuid import UUID
from zoneinfo import ZoneInfo

from costmw import __version__
from costmw.answers import (
    Anomalies,
    Answer,
    Breakdown,
    BudgetList,
    BudgetRule,
    CallDetail,
    CallPage,
    Forecast,
    Overview,
    Series,
    Values,
)
from costmw.budgets import Budget
from costmw.dashboard.auth import Principal
from costmw.dashboard.cursors import Cursors, Secret
from costmw.dashboard.problems import HttpProblem
from costmw.errors import ConfigError
from costmw.meter import Meter, MeterStatus
from costmw.monthly import MonthlyReport, monthly_report
from costmw.question import Question
from costmw.reports.budgets import rule_of


class Recording(Answer):
    """How recording goes in one process; see `MeterStatus`. Its store may hold a password."""

    started: bool
    committed: int
    waiting: int
    waiting_seconds: float
    late: int
    dropped: int
    rejected: int
    store_failures: int
    faults: int
    last_error: str | None

    @classmethod
    def of(cls, status: MeterStatus) -> Recording:
        """What is told of a meter."""
        return cls(**{name: getattr(status, name) for name in cls.model_fields})


class Status(Answer):
    """Who is asking, and how recording goes in the process that answers.

    `meter` is None for those with a scope: its numbers are everybody's.
    """

    version: str
    enabled: bool
    scope: dict[str, str]
    can_edit: bool
    meter: Recording | None


class Questions:
    """The questions of one principal; here, and nowhere else, the scope is applied.

    `secret` is what the places in a list of calls are enciphered by.
    """

    def __init__(self, meter: Meter, principal: Principal, secret: Secret) -> None:
        self._meter = meter
        self._secret = secret
        self._reports = meter.reports
        self._principal = principal
        self._scope = principal.scope

    @property
    def who(self) -> tuple[object, ...]:
        """What answers depend on, beside the question: the same may be told to all like this."""
        return tuple(sorted(self._scope.items())), self._principal.can_edit

    @property
    def may_edit(self) -> bool:
        """Whether budgets may be changed: they are everybody's, so by nobody with a scope."""
        return self._principal.can_edit and not self._scope

    def overview(self, question: Question) -> Overview:
        """Everything for the first screen."""
        return self._reports.overview(question, scope=self._scope, can_edit=self.may_edit)

    def breakdown(self, question: Question) -> Breakdown:
        """Sums by values."""
        return self._reports.breakdown(question, scope=self._scope)

    def series(self, question: Question) -> Series:
        """Values over time."""
        return self._reports.series(question, scope=self._scope)

    def anomalies(self, question: Question) -> Anomalies:
        """What was unusual."""
        return self._reports.anomalies(question, scope=self._scope)

    def forecast(self) -> Forecast:
        """How spend goes on."""
        return self._reports.forecast(scope=self._scope)

    def calls(self, question: Question, limit: int, before: str | None) -> CallPage:
        """The newest calls, or those before a cursor."""
        found = self._reports.calls(
            limit,
            before=None if before is None else self._cursors().position_of(before),
            question=question,
            scope=self._scope,
        )
        is_full = len(found) == limit
        return CallPage(
            calls=[call for _, call in found],
            before=self._cursors().text_of(found[-1][0]) if is_full else None,
        )

    def _cursors(self) -> Cursors:
        # Those who see everything may know how much that is.
        return Cursors(self._secret() if self._scope else b"", self._scope)

    def call(self, call_id: UUID) -> CallDetail | None:
        """One call, or None when there is none that this principal may see."""
        return self._reports.call(call_id, scope=self._scope)

    def values(self, key: str, contains: str, limit: int) -> Values:
        """Values to choose from."""
        return self._reports.values(key, contains=contains, limit=limit, scope=self._scope)

    def budgets(self) -> BudgetList:
        """How far budgets are used, and what they say to those who see everything."""
        return self._reports.budget_list(scope=self._scope, can_edit=self.may_edit)

    def report(self, month: str, zone: str | None) -> MonthlyReport:
        """The report of a month, given as YYYY-MM; of the last one that is over without any.

        Raises:
            ConfigError: when that has not begun.
        """
        return monthly_report(
            self._meter.store,
            month,
            scope=self._scope,
            budgets=self._meter.budgets,
            pricing=self._reports.pricing,
            zone=ZoneInfo(zone) if zone else None,
        )

    def check_edit(self) -> None:
        """Let only those pass who may change budgets.

        Raises:
            HttpProblem: 403, for all others.
        """
        if not self.may_edit:
            raise HttpProblem(
                403,
                "You may look and not change: auth must give Principal(can_edit=True), and no "
                "scope, since budgets count everybody's calls.",
            )

    def keep_budget(self, budget: Budget) -> BudgetRule:
        """Make or change a budget of the page.

        Raises:
            HttpProblem: 409, when an app's code has one of this name.
        """
        try:
            self._meter.keep_budget(budget)
        except ConfigError as error:
            raise HttpProblem(409, f"{error}.") from None
        return rule_of(budget, "page")

    def drop_budget(self, name: str) -> None:
        """Take away a budget of the page.

        Raises:
            HttpProblem: 404, when there is none of this name; 409, when an app's code has it.
        """
        rules = self._reports.budget_rules()
        if name not in rules:
            raise HttpProblem(404, f"There is no budget of the name {name!r}.")
        if rules[name].source == "code":
            raise HttpProblem(409, f"The budget {name!r} is set in an app's code; remove it there.")
        self._meter.drop_budget(name)

    def status(self) -> Status:
        """Who is asking, and how recording goes."""
        return Status(
            version=__version__,
            enabled=self._meter.enabled,
            scope=dict(self._scope),
            can_edit=self._principal.can_edit,
            meter=None if self._scope else Recording.of(self._meter.status()),
        )
