"""Budgets as declared: what makes sense is kept, the rest refused with the field's name."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from costmw import Budget, Meter
from costmw.errors import ConfigError
from costmw.money import MAX_PICO


@pytest.mark.parametrize(
    ("limit", "pico"),
    [
        ("50", 50 * 10**12),
        (50, 50 * 10**12),
        (Decimal("0.000000000001"), 1),
        ("12.50", 12_500_000_000_000),
        (0, 0),
        ("9223372.036854775807", MAX_PICO),
    ],
)
def test_a_limit_is_exact(limit: Any, pico: int) -> None:
    assert pico == Budget("b", limit=limit).limit_pico_usd


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (0.1, "string or Decimal"),
        ("ten", "not a decimal number"),
        ("NaN", "finite"),
        ("-1", "negative"),
        ("9223372.036854775808", "beyond 9.2 million"),
        ("1e999999999", "cannot be meant"),
        (None, "string or Decimal"),
        (True, "string or Decimal"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(limit: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"the limit of budget 'cap' is .*{message}"):
        Budget("cap", limit=limit)


@pytest.mark.parametrize("name", ["", None, 5])
def test_a_budget_needs_a_name(name: Any) -> None:
    with pytest.raises(ConfigError, match="needs a name"):
        Budget(name, limit="1")


@pytest.mark.parametrize("period", ["year", "", None, ["day"]])
def test_an_unknown_period_is_refused_with_those_there_are(period: Any) -> None:
    with pytest.raises(ConfigError, match="period of budget 'cap' .*day, week, month, total"):
        Budget("cap", limit="1", period=period)


@pytest.mark.parametrize("alert_at", [(0,), (-0.5,), (80,), 0.8, ("0.8",), "80%", (None,)])
def test_alerts_are_shares_of_the_limit(alert_at: Any) -> None:
    with pytest.raises(ConfigError, match="alert_at of budget 'cap' must be shares"):
        Budget("cap", limit="1", alert_at=alert_at)


@pytest.mark.parametrize("alert_at", [(), (0.5, 1.0), [1.5], (1,)])
def test_alerts_may_be_few_or_beyond_the_limit(alert_at: Any) -> None:
    assert alert_at == Budget("cap", limit="1", alert_at=alert_at).alert_at


@pytest.mark.parametrize(("action", "message"), [("stop", "use one of alert, block")])
def test_an_action_that_is_not_there_is_refused(action: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Budget("cap", limit="1", action=action)


@pytest.mark.parametrize(
    ("per", "keys"),
    [
        (None, ()),
        ((), ()),
        ("tenant", ("tenant",)),
        (["tenant", "feature"], ("tenant", "feature")),
        (("tenant",), ("tenant",)),
    ],
)
def test_a_budget_is_split_by_its_tags(per: Any, keys: tuple[str, ...]) -> None:
    assert keys == Budget("cap", limit="1", per=per).tag_keys


@pytest.mark.parametrize("per", [5, (5,), "", ("tenant", None), b"tenant"])
def test_what_splits_a_budget_must_be_keys_of_tags(per: Any) -> None:
    with pytest.raises(ConfigError, match="per of budget 'cap'"):
        Budget("cap", limit="1", per=per)


@pytest.mark.parametrize("where", ["tenant", {"tenant": 5}, {5: "acme"}, None, ["tenant"]])
def test_what_narrows_a_budget_must_be_tags(where: Any) -> None:
    with pytest.raises(ConfigError, match="where of budget 'cap'"):
        Budget("cap", limit="1", where=where)


def test_a_meter_refuses_two_budgets_of_one_name(store_url: str) -> None:
    with pytest.raises(ConfigError, match="two budgets are named 'cap'"):
        Meter(store_url, budgets=[Budget("cap", limit=1), Budget("cap", limit=2)])
