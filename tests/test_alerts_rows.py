"""Alerts in the ledger, which both stores keep alike: each once, in order, for each channel."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from costmw.errors import StoreError
from costmw.events import new_id
from costmw.store.alert_rows import AlertRow, AlertRows, NextAlert
from costmw.store.layers import alerts_of
from postgres_server import postgres
from rows import NOON, an_event
from stores import Place, changing, place, place_of, store

__all__ = ["place", "place_of", "postgres", "store"]

ROW = AlertRow(
    "budget.threshold",
    "all",
    {"tenant": "Café 'x' \\ \0", "user": "{}"},
    NOON,
    "0.5 of 10",
    {"spent_usd": "5"},
    NOON + timedelta(days=90),
)


@pytest.fixture
def alerts(store: Any) -> AlertRows:
    found = alerts_of(store)
    assert found is not None
    return found


def an_alert(number: int, **changes: Any) -> AlertRow:
    return AlertRow("model.new", scope={"model": str(number)}, **changes)


def next_of(alerts: AlertRows, channel: str = "ops") -> NextAlert:
    found = alerts.next_for(channel)
    assert found is not None
    return found


def drain(alerts: AlertRows, channel: str = "ops") -> list[str]:
    """The models of all alerts that a channel is given, each delivered at once."""
    models = []
    while given := alerts.next_for(channel):
        models.append(given.row.scope["model"])
        alerts.delivered(channel, given)
    return models


class TestOnce:
    def test_it_is_read_as_it_was_kept(self, alerts: AlertRows) -> None:
        alerts.register("ops", "address")
        assert [ROW] == alerts.add([ROW])
        assert replace(ROW, scope=ROW.scope) == next_of(alerts).row

    def test_the_same_is_kept_once(self, alerts: AlertRows) -> None:
        """Whoever finds it again, with other figures, and whenever."""
        again = replace(ROW, details={"spent_usd": "6"}, id=new_id(), raised_at=NOON)
        alerts.register("ops", "address")

        assert [ROW] == alerts.add([ROW, again])
        assert [] == alerts.add([again])
        assert ROW.id == next_of(alerts).row.id
        assert ROW.digest == again.digest
        assert {ROW.digest} == alerts.known([again, an_alert(1)])

    @pytest.mark.parametrize(
        "changes",
        [
            {"kind": "budget.on_course_to_exceed"},
            {"budget": "other"},
            {"scope": {"tenant": "other"}},
            {"period_start": NOON + timedelta(days=1)},
            {"threshold": "0.8 of 10"},
        ],
    )
    def test_what_makes_it_another(self, alerts: AlertRows, changes: Any) -> None:
        other = replace(ROW, id=new_id(), **changes)

        assert [ROW, other] == alerts.add([ROW, other])

    def test_many_find_the_same_at_one_moment(self, place: Place) -> None:
        """Two stores, eight threads, fifty alerts: each is added by one of them."""
        stores = [alerts_of(place.open()) for _ in range(2)]
        rows = [an_alert(n) for n in range(50)]
        barrier = threading.Barrier(8)

        def find(number: int) -> list[str]:
            barrier.wait()
            alerts = stores[number % 2]
            assert alerts is not None
            mine = [replace(row, id=new_id()) for row in rows]
            return [row.digest for one in mine for row in alerts.add([one])]

        with ThreadPoolExecutor(8) as pool:
            added = [digest for found in pool.map(find, range(8)) for digest in found]
        assert sorted(row.digest for row in rows) == sorted(added)

    def test_it_is_undone_with_its_transaction(self, alerts: AlertRows) -> None:
        other = replace(ROW, id=ROW.id, threshold="1")  # an id that is taken
        with pytest.raises(Exception, match="(?i)unique"):  # the database's own
            alerts.add([an_alert(1), ROW, other])

        assert set() == alerts.known([an_alert(1), ROW])


class TestChannels:
    def test_they_get_what_is_raised_from_then_on_in_its_order(self, alerts: AlertRows) -> None:
        alerts.add([an_alert(1)])
        alerts.register("ops", "address")
        alerts.add([an_alert(3), an_alert(2)])
        alerts.register("late", "address")
        alerts.add([an_alert(4)])

        assert ["3", "2", "4"] == drain(alerts)
        assert ["4"] == drain(alerts, "late")
        assert alerts.next_for("unknown") is None

    def test_registering_again_changes_nothing(self, alerts: AlertRows) -> None:
        alerts.register("ops", "address")
        alerts.add([an_alert(1), an_alert(2)])
        alerts.delivered("ops", next_of(alerts))
        alerts.failed("ops", next_of(alerts), 60)
        alerts.register("ops", "address")

        given = next_of(alerts)
        assert ("2", 1) == (given.row.scope["model"], given.attempts)
        assert given.due_in is not None
        assert 50 < given.due_in <= 60

    def test_what_failed_is_due_later_and_holds_up_the_next(self, alerts: AlertRows) -> None:
        alerts.register("ops", "address")
        alerts.register("other", "address")
        alerts.add([an_alert(1), an_alert(2)])
        for attempt in range(3):
            assert attempt == next_of(alerts).attempts
            alerts.failed("ops", next_of(alerts), 0)
        assert 0 == next_of(alerts).due_in

        assert ["1", "2"] == drain(alerts, "other")
        alerts.delivered("ops", next_of(alerts))
        assert ("2", 0, 0) == (
            next_of(alerts).row.scope["model"],
            next_of(alerts).attempts,
            next_of(alerts).due_in,
        )

    def test_who_comes_too_late_moves_nothing(self, alerts: AlertRows) -> None:
        """A process that was stopped for a while, and has lost its claim meanwhile."""
        alerts.register("ops", "address")
        alerts.add([an_alert(1), an_alert(2), an_alert(3)])
        stopped = next_of(alerts)
        alerts.delivered("ops", next_of(alerts))
        alerts.delivered("ops", next_of(alerts))

        alerts.delivered("ops", stopped)
        alerts.failed("ops", stopped, 60)
        assert ("3", 0) == (next_of(alerts).row.scope["model"], next_of(alerts).attempts)

    def test_a_closed_one_stays_closed_until_it_leads_elsewhere(self, alerts: AlertRows) -> None:
        alerts.register("ops", "address")
        alerts.add([an_alert(1)])
        alerts.failed("ops", next_of(alerts), None)
        alerts.register("ops", "address")
        assert next_of(alerts).due_in is None

        alerts.register("ops", "another")
        assert (0, 0) == (next_of(alerts).due_in, next_of(alerts).attempts)

    def test_a_closed_one_is_opened_again(self, alerts: AlertRows) -> None:
        alerts.register("ops", "address")
        alerts.add([an_alert(1)])
        alerts.failed("ops", next_of(alerts), None)
        alerts.try_again("ops")

        assert 0 == next_of(alerts).due_in

    def test_what_is_quiet_is_known_and_not_told(self, alerts: AlertRows) -> None:
        alerts.register("ops", "address")
        alerts.add([an_alert(1, quiet=True), an_alert(2), an_alert(3, quiet=True)])

        assert [] == alerts.add([an_alert(1)])
        assert ["2"] == drain(alerts)


class TestClaims:
    def test_one_owner_at_a_time(self, alerts: AlertRows) -> None:
        assert alerts.claim("look", "one", 60)
        assert alerts.claim("look", "one", 60)
        assert not alerts.claim("look", "two", 60)
        assert alerts.claim("other", "two", 60)
        alerts.claim("look", "one", 0)
        assert alerts.claim("look", "two", 60)

    def test_it_ends_by_itself(self, alerts: AlertRows) -> None:
        assert alerts.claim("look", "one", 0.2)
        assert not alerts.claim("look", "two", 60)
        threading.Event().wait(0.25)
        assert alerts.claim("look", "two", 60)

    def test_a_clock_that_was_put_back_keeps_nobody_out(self, alerts: AlertRows) -> None:
        assert alerts.claim("look", "one", 10**6)
        assert alerts.claim("look", "two", 60)


class TestForgetting:
    def test_what_is_over_is_dropped(self, alerts: AlertRows) -> None:
        now = datetime.now(UTC)
        rows = [
            an_alert(1, forget_at=now - timedelta(seconds=5)),
            an_alert(2, forget_at=now + timedelta(minutes=5)),
            an_alert(3),
        ]
        alerts.add(rows)
        alerts.drop_forgotten()

        assert {row.digest for row in rows[1:]} == alerts.known(rows)

    def test_nothing_is_missed_when_all_were_dropped(self, alerts: AlertRows) -> None:
        alerts.add([an_alert(1, forget_at=NOON)])
        alerts.drop_forgotten()
        alerts.register("ops", "address")
        alerts.add([an_alert(2)])

        assert ["2"] == drain(alerts)

    @pytest.mark.parametrize("substitute", [None, "nobody"])
    def test_a_person_is_taken_out(self, store: Any, substitute: str | None) -> None:
        """With their calls; and is not alerted of again under the new name."""
        alerts = alerts_of(store)
        assert alerts is not None
        store.write([an_event(1, tags={"user": "alice"})])
        mine = AlertRow("budget.threshold", "each", {"user": "alice"}, NOON, "0.5 of 1")
        others = AlertRow("budget.threshold", "each", {"user": "bob"}, NOON, "0.5 of 1")
        model = AlertRow("model.new", scope={"user": "alice"})  # no tag
        alerts.register("ops", "address")
        alerts.add([mine, others, model])

        store.forget("user", "alice", substitute=substitute)
        scopes = []
        while given := alerts.next_for("ops"):
            scopes.append(given.row.scope["user"])
            alerts.delivered("ops", given)
        name = scopes[0]
        assert name == substitute if substitute else name.startswith("(erased ")
        assert [name, "bob", "alice"] == scopes
        assert [] == alerts.add([replace(mine, scope={"user": name}, id=new_id())])

    def test_a_person_becomes_one_who_has_alerts_already(self, store: Any) -> None:
        alerts = alerts_of(store)
        assert alerts is not None
        store.write([an_event(1, tags={"user": user}) for user in ("alice", "bob")])
        rows = [AlertRow("k", "each", {"user": user}, NOON) for user in ("alice", "bob")]
        alerts.add(rows)

        store.forget("user", "alice", substitute="bob")
        assert {rows[1].digest} == alerts.known(rows)


def test_a_store_without_tables_makes_them(place: Place) -> None:
    alerts = alerts_of(place.make())
    assert alerts is not None

    assert [ROW] == alerts.add([ROW])


def test_a_store_that_is_away_says_so(place_of: Any) -> None:
    store = place_of("sqlite").open()
    alerts = alerts_of(store)
    assert alerts is not None
    with changing(store) as connection:
        connection.execute("DROP TABLE alert_channels")
    with pytest.raises(StoreError, match="cannot use"):
        alerts.register("ops", "address")
