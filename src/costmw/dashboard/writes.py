"""Changes that the page makes: budgets, by those who may, and from this page only."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from costmw.budgets import LONGEST_WAIT, Action, Budget, BudgetPeriod, Fail, OnUnpriced
from costmw.dashboard.messages import MOST_BODY, Request
from costmw.dashboard.problems import HttpProblem
from costmw.errors import ConfigError

MOST_SPLITS = 4
"""Tags that a budget made on the page is split by at most."""

MOST_ENTRIES = 1000
"""Limits of single values in one budget of the page at most."""

UsdText = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,7}(\.[0-9]{1,12})?$")]
"""Money as a plain decimal string: a number of JSON would not be exact."""

NAME = r"[^\x00-\x1f/]{1,128}"
"""What a budget may be called: on one line, and as the last part of an address."""

_TEXT = r"^[^\x00]*$"
TagKey = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_TEXT)]
TagValue = Annotated[str, StringConstraints(max_length=256, pattern=_TEXT)]


class Input(BaseModel):
    """Base of what is sent; what nobody knows is an error, and not ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class LimitInput(Input):
    """A limit of its own for one value, or combination of values."""

    values: Annotated[list[TagValue], Field(min_length=1, max_length=MOST_SPLITS)]
    limit_usd: UsdText


class BudgetInput(Input):
    """A budget; see `costmw.Budget`."""

    limit_usd: UsdText
    period: BudgetPeriod = "month"
    per: Annotated[list[TagKey], Field(max_length=MOST_SPLITS)] = []
    where: Annotated[
        dict[TagKey, TagValue],
        # The pattern of the keys stands among patternProperties: others are let pass without this.
        Field(max_length=MOST_SPLITS, json_schema_extra={"additionalProperties": False}),
    ] = {}
    action: Action = "alert"
    alert_at: Annotated[list[Annotated[float, Field(gt=0, le=10)]], Field(max_length=20)] = [
        0.5,
        0.8,
        1.0,
    ]
    limits: Annotated[list[LimitInput], Field(max_length=MOST_ENTRIES)] = []
    max_output_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    on_unpriced: OnUnpriced = "dearest"
    wait: Annotated[float, Field(ge=0, le=LONGEST_WAIT)] = 2.0
    fail: Fail = "closed"

    def budget(self, name: str) -> Budget:
        """The budget that it says.

        Raises:
            ConfigError: when it makes no sense.
        """
        if len(set(self.per)) < len(self.per):
            raise ConfigError("per names a tag twice")
        return Budget(
            name,
            limit=Decimal(self.limit_usd),
            per=self.per or None,
            where=self.where,
            period=self.period,
            action=self.action,
            alert_at=self.alert_at,
            limits={tuple(one.values): Decimal(one.limit_usd) for one in self.limits},
            max_output_tokens=self.max_output_tokens,
            on_unpriced=self.on_unpriced,
            wait=self.wait,
            fail=self.fail,
        )


def check_origin(request: Request) -> None:
    """Let changes pass only from this page, or from a program that signs in by itself.

    A browser adds credentials that it keeps to whatever another page sends; an
    `Authorization: Bearer` it adds for nobody.

    Raises:
        HttpProblem: 403, for all others.
    """
    headers = request.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        allowed = site == "same-origin"
    elif origin is not None:
        allowed = urlsplit(origin).netloc == headers.get("host") is not None
    else:
        allowed = headers.get("authorization", "").lower().startswith("bearer ")
    if not allowed:
        raise HttpProblem(
            403,
            "Changes are made from this page alone; programs send Authorization: Bearer.",
        )


def budget_of(request: Request, name: str) -> Budget:
    """The budget that a request's body says.

    Raises:
        HttpProblem: 413, 415, or 400 with the field that cannot be used.
    """
    if not re.fullmatch(NAME, name):
        detail = "A budget's name has 1 to 128 characters, no slash and no line ends."
        raise HttpProblem(400, detail, field="name")
    if len(request.body) > MOST_BODY:
        raise HttpProblem(413, f"The body has more than {MOST_BODY} bytes.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpProblem(415, "Send the budget as application/json.")
    try:
        return BudgetInput.model_validate_json(request.body).budget(name)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _refused(first["loc"], first["msg"]) from None
    except ConfigError as error:
        raise HttpProblem(400, f"{error}.", None, **_field_of(error)) from None


def _field_of(error: ConfigError) -> dict[str, str]:
    """The field that a budget complains of, by the words that it begins with."""
    words = str(error).split()
    named = "limit_usd" if words[:2] == ["the", "limit"] else words[0]
    return {"field": named} if named in BudgetInput.model_fields else {}


def _refused(place: tuple[Any, ...], message: str) -> HttpProblem:
    field = ".".join(str(part) for part in place)
    if not field:
        return HttpProblem(400, f"The body is no budget: {message}.")
    return HttpProblem(400, f"{field}: {message}.", field=field)
