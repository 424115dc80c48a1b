"""The API: every operation with its parameters, answers and statuses, in one table.

What is documented and what is done come from the same entries.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from costmw.answers import (
    Anomalies,
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
from costmw.dashboard import parameters as p
from costmw.dashboard.messages import Request, Response
from costmw.dashboard.parameter import Parameter
from costmw.dashboard.parameters import Parameters
from costmw.dashboard.problems import HttpProblem
from costmw.dashboard.questions import Questions, Status
from costmw.dashboard.responses import Told, json_response
from costmw.dashboard.shared import Shared
from costmw.dashboard.tables import breakdown_table, calls_table, series_table
from costmw.dashboard.writes import BudgetInput, budget_of, check_origin


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to the API; `name` is what stands in the place of a path's last part."""

    request: Request
    questions: Questions
    shared: Shared[Told]
    parameters: Parameters
    name: str

    def read(self, parameter: Parameter[Any]) -> Any:
        """What a parameter says."""
        return self.parameters.read(parameter)

    def told(self, what: str, question: Hashable, make: Callable[[], BaseModel]) -> Response:
        """An answer that is made once for all who see the same and ask the same."""
        key = (what, self.questions.who, question)
        return self.shared.get(key, lambda: Told.of(make())).response(self.request)


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that can be asked or done; `path` ends in {id} or {name} where it has one."""

    method: str
    path: str
    name: str
    about: str
    answer: type[BaseModel] | None
    handle: Callable[[Ask], Response]
    parameters: tuple[Parameter[Any], ...] = ()
    takes: type[BaseModel] | None = None
    is_shared: bool = False
    is_table: bool = False

    @property
    def place(self) -> str | None:
        """The name of what stands in the path; None without any."""
        return self.path.partition("{")[2].rstrip("}") or None


def _overview(ask: Ask) -> Response:
    question = ask.parameters.question()
    return ask.told("overview", question, lambda: ask.questions.overview(question))


def _breakdown(ask: Ask) -> Response:
    question = ask.parameters.question()
    if ask.read(p.FORMAT) == "csv":
        return breakdown_table(ask.questions.breakdown(question))
    return ask.told("breakdown", question, lambda: ask.questions.breakdown(question))


def _series(ask: Ask) -> Response:
    question = ask.parameters.question()
    if ask.read(p.FORMAT) == "csv":
        return series_table(ask.questions.series(question))
    return ask.told("series", question, lambda: ask.questions.series(question))


def _calls(ask: Ask) -> Response:
    question = ask.parameters.question_of_calls()
    page = ask.questions.calls(question, ask.read(p.LIMIT), ask.read(p.BEFORE))
    return calls_table(page) if ask.read(p.FORMAT) == "csv" else json_response(page)


def _call(ask: Ask) -> Response:
    try:
        call_id = UUID(ask.name)
    except ValueError:
        raise HttpProblem(400, "The id of a call must be a UUID.", parameter="id") from None
    call = ask.questions.call(call_id)
    if call is None:
        raise HttpProblem(404, "There is no such call, or not for you.")
    return json_response(call)


def _values(ask: Ask) -> Response:
    found = ask.questions.values(ask.read(p.KEY), ask.read(p.CONTAINS), ask.read(p.OFFERED))
    return json_response(found)


def _anomalies(ask: Ask) -> Response:
    question = ask.parameters.question()
    return ask.told("anomalies", question, lambda: ask.questions.anomalies(question))


def _forecast(ask: Ask) -> Response:
    return ask.told("forecast", None, ask.questions.forecast)


def _budgets(ask: Ask) -> Response:
    return ask.told("budgets", None, ask.questions.budgets)


def _keep_budget(ask: Ask) -> Response:
    check_origin(ask.request)
    ask.questions.check_edit()
    kept = ask.questions.keep_budget(budget_of(ask.request, ask.name))
    ask.shared.forget()
    return json_response(kept)


def _drop_budget(ask: Ask) -> Response:
    check_origin(ask.request)
    ask.questions.check_edit()
    ask.questions.drop_budget(ask.name)
    ask.shared.forget()
    return Response(204)


def _status(ask: Ask) -> Response:
    return json_response(ask.questions.status())


def _openapi(ask: Ask) -> Response:
    from costmw.dashboard.openapi import document

    return document().response(ask.request)


_CALLS = (p.RANGE_OF_CALLS, *p.SPAN, p.FILTER, p.LIMIT, p.BEFORE, p.FORMAT)

OPERATIONS = (
    Operation(
        "GET",
        "overview",
        "overview",
        "Everything of the page's first screen, at one moment.",
        Overview,
        _overview,
        p.VIEW,
        is_shared=True,
    ),
    Operation(
        "GET",
        "breakdown",
        "breakdown",
        "Sums by values, the first in rank first.",
        Breakdown,
        _breakdown,
        (*p.VIEW, p.FORMAT),
        is_shared=True,
        is_table=True,
    ),
    Operation(
        "GET",
        "series",
        "series",
        "Values over time.",
        Series,
        _series,
        (*p.VIEW, p.FORMAT),
        is_shared=True,
        is_table=True,
    ),
    Operation(
        "GET",
        "calls",
        "calls",
        "Single calls, the newest first.",
        CallPage,
        _calls,
        _CALLS,
        is_table=True,
    ),
    Operation("GET", "calls/{id}", "call", "One call with its arithmetic.", CallDetail, _call),
    Operation(
        "GET",
        "values",
        "values",
        "Values of a dimension or tag, to choose from.",
        Values,
        _values,
        (p.KEY, p.CONTAINS, p.OFFERED),
    ),
    Operation(
        "GET",
        "anomalies",
        "anomalies",
        "Days, and hours of today, that cost far more than is usual.",
        Anomalies,
        _anomalies,
        p.VIEW,
        is_shared=True,
    ),
    Operation(
        "GET",
        "forecast",
        "forecast",
        "What the month will cost, and when budgets run out.",
        Forecast,
        _forecast,
        is_shared=True,
    ),
    Operation(
        "GET",
        "budgets",
        "budgets",
        "The fullest limits, and what all budgets say.",
        BudgetList,
        _budgets,
        is_shared=True,
    ),
    Operation(
        "PUT",
        "budgets/{name}",
        "keep_budget",
        "Make a budget, or change one that was made here.",
        BudgetRule,
        _keep_budget,
        takes=BudgetInput,
    ),
    Operation(
        "DELETE",
        "budgets/{name}",
        "drop_budget",
        "Take away a budget that was made here.",
        None,
        _drop_budget,
    ),
    Operation(
        "GET",
        "status",
        "status",
        "Who is asking, and how recording goes in the process that answers.",
        Status,
        _status,
    ),
    Operation("GET", "openapi.json", "openapi", "This document.", None, _openapi),
)


def operations_at(path: Sequence[str]) -> tuple[Mapping[str, Operation], str]:
    """What can be done at a path below the API, by method, and the name in the path."""
    name = "/".join(path[1:])
    return {one.method: one for one in OPERATIONS if _is_at(one, path, name)}, name


def _is_at(one: Operation, path: Sequence[str], name: str) -> bool:
    if one.path.partition("/")[0] != path[0]:
        return False
    match one.place:
        case None:
            return len(path) == 1
        case "id":
            return len(path) == 2 and bool(name)
    # A name may have slashes in it, which servers decode.
    return len(path) > 1 and bool(name)


def allowed(operations: Mapping[str, Operation]) -> str:
    """The methods of an Allow header."""
    return ", ".join(sorted({*operations, *(["HEAD"] if "GET" in operations else [])}))
