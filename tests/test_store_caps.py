"""Blocking budgets in every store: what is held, charged and given back, and who is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from costmw import Budget, Config
from costmw.caps.book import Balance, Refusal
from costmw.caps.rules import BalanceKey, Rule
from costmw.care import commands
from costmw.errors import ConfigError, StoreError
from costmw.events import Amendment, Release, Renewal, Reservation, UsageEvent, new_id
from costmw.money import from_pico
from costmw.reports import Reports
from costmw.store.charges import LATE
from costmw.store.hashed_tags import HashedTags, hash_of
from costmw.store.holds import EXPIRED
from costmw.store.layers import open_store
from postgres_server import postgres
from rows import NOON, a_reservation, an_event, settled
from stores import Place, changing, place, place_of, store

__all__ = ["place", "place_of", "postgres", "store"]

ACME = {"tenant": "acme"}
DAY = timedelta(days=1)


def a_cap(name: str = "cap", limit: int = 10, **settings: Any) -> Budget:
    """A budget of so many pico-USD."""
    settings = {"period": "month", "action": "block", **settings}
    return Budget(name, limit=from_pico(limit), **settings)


def declare(store: Any, *budgets: Budget, now: datetime = NOON) -> None:
    """What an app does that starts with these budgets, and makes its first call."""
    if hasattr(store, "_caps"):
        store._caps.now = lambda: now
    store.declare([Rule.of(budget) for budget in budgets])
    store.write([Release(new_id())])


def reserve(store: Any, pico_usd: int, tags: Mapping[str, str] = ACME, **how: Any) -> Reservation:
    """A hold that is granted."""
    asked = a_reservation(tags, pico_usd, **{"checked": ("cap",), **how})
    assert {} == dict(store.write([asked]))
    return asked


def refused(store: Any, pico_usd: int, tags: Mapping[str, str] = ACME, **how: Any) -> Refusal:
    """A hold that is not."""
    asked = a_reservation(tags, pico_usd, **{"checked": ("cap",), **how})
    refusal = store.write([asked])[asked.id]
    assert isinstance(refusal, Refusal)
    return refusal


def balance(
    store: Any, tags: Mapping[str, str] = ACME, *, name: str = "cap", at: datetime = NOON
) -> Balance:
    """What one budget has; what it says agrees with the ledger."""
    assert [] == list(store.verify_balances())
    with store.snapshot() as snapshot:
        return next(use.balance for use in snapshot.limits(tags, at) if use.rule.name == name)


def stored(store: Any) -> list[UsageEvent]:
    with store.snapshot() as snapshot:
        found = dict(snapshot.events(scope={}, limit=1_000))
    return [found[position] for position in sorted(found)]


class TestHolds:
    def test_what_a_call_may_cost_is_held_and_what_it_cost_is_charged(self, store: Any) -> None:
        declare(store, a_cap())
        held = reserve(store, 7)
        assert Balance(held=7) == balance(store)
        store.write([settled(held, 5)])
        assert Balance(spent=5) == balance(store)

    def test_a_hold_that_does_not_fit_is_refused_and_says_why(self, store: Any) -> None:
        declare(store, a_cap(per="tenant"))
        store.write([settled(reserve(store, 4), 3)])
        reserve(store, 4)

        found = refused(store, 4)

        assert BalanceKey("cap", ("acme",), datetime(2026, 3, 1, tzinfo=UTC)) == found.key
        assert (4, 3, 4, 10) == (found.asked, found.spent, found.held, found.limit)
        assert datetime(2026, 4, 1, tzinfo=UTC) == found.resets_at
        assert found.may_fit
        assert not refused(store, 8).may_fit
        assert Balance(spent=3, held=4) == balance(store)
        reserve(store, 10, {"tenant": "other"})

    def test_the_limit_itself_can_be_used_to_the_last(self, store: Any) -> None:
        declare(store, a_cap())
        reserve(store, 10)
        reserve(store, 0)
        refused(store, 1)

    def test_of_several_budgets_all_hold_or_none(self, store: Any) -> None:
        declare(store, a_cap("all", 100), a_cap("cap", 10, per="tenant"), a_cap("user", 5))
        names = ("all", "cap", "user")
        assert "user" == refused(store, 6, checked=names).rule.name
        for name in names:
            assert Balance() == balance(store, name=name)
        reserve(store, 5, checked=names)
        assert [Balance(held=5)] * 3 == [balance(store, name=name) for name in names]

    def test_a_budget_that_is_not_asked_counts_all_the_same(self, store: Any) -> None:
        """One app has taken it out of its code; another has not started anew."""
        declare(store, a_cap())
        reserve(store, 100, checked=())
        assert Balance(held=100) == balance(store)

    def test_what_is_given_back_is_there_for_others(self, store: Any) -> None:
        declare(store, a_cap())
        held = reserve(store, 10)
        store.write([Release(held.id)])
        store.write([Release(held.id)])
        assert Balance() == balance(store)
        reserve(store, 10)

    def test_in_one_batch_what_is_given_back_comes_first(self, store: Any) -> None:
        declare(store, a_cap())
        one, two = reserve(store, 5), reserve(store, 5)
        asked = a_reservation(ACME, 8, checked=("cap",))
        assert {} == dict(store.write([asked, settled(one, 1), Release(two.id)]))
        assert Balance(spent=1, held=8) == balance(store)

    def test_one_that_is_handed_in_twice_holds_once(self, store: Any) -> None:
        declare(store, a_cap())
        asked = a_reservation(ACME, 6, checked=("cap",))
        assert {} == dict(store.write([asked, asked]))
        assert {} == dict(store.write([asked]))
        assert Balance(held=6) == balance(store)

    def test_one_that_was_given_up_in_the_same_batch_is_not_held(self, store: Any) -> None:
        declare(store, a_cap())
        asked = a_reservation(ACME, 6, checked=("cap",))
        store.write([asked, Release(asked.id)])
        assert Balance() == balance(store)

    def test_a_row_that_is_written_twice_is_charged_once(self, store: Any) -> None:
        declare(store, a_cap())
        event = settled(reserve(store, 7), 5)
        store.write([event, event])
        store.write([event])
        assert Balance(spent=5) == balance(store)

    def test_more_than_was_held_is_charged_as_it_is(self, store: Any) -> None:
        declare(store, a_cap())
        store.write([settled(reserve(store, 7), 25)])
        assert Balance(spent=25) == balance(store)
        assert not refused(store, 1).may_fit

    def test_calls_without_a_hold_count_too(self, store: Any) -> None:
        declare(store, a_cap())
        store.write([an_event(4, tags=ACME), an_event(None, tags=ACME)])
        assert Balance(spent=4) == balance(store)

    def test_a_call_without_a_known_cost_is_charged_what_was_held(self, store: Any) -> None:
        declare(store, a_cap())
        store.write([settled(reserve(store, 7), None)])
        assert Balance(assumed=7) == balance(store)
        assert [None] == [event.price.cost_pico_usd for event in stored(store)]
        assert 7 == refused(store, 4).spent

    def test_an_estimate_is_charged_with_all_that_was_held(self, store: Any) -> None:
        """Nobody goes on for ever by breaking off streams whose reasoning is not seen."""
        declare(store, a_cap())
        for status in ("estimated", "incomplete"):
            store.write([settled(reserve(store, 4), 1, status=status)])
        assert Balance(spent=2, assumed=6) == balance(store)
        refused(store, 3)
        first = stored(store)[0]
        store.write([Amendment(first.id, "read after all", status="ok", cost_pico_usd=1)])
        assert Balance(spent=3, assumed=3) == balance(store)

    def test_sums_have_no_end(self, store: Any) -> None:
        declare(store, a_cap(limit=2**63 - 1))
        for _ in range(3):
            store.write([an_event(2**62, tags=ACME)])
        assert Balance(spent=3 * 2**62) == balance(store)
        refused(store, 1)


class TestExpiry:
    def test_a_hold_that_nobody_settles_is_charged_in_full(self, store: Any) -> None:
        declare(store, a_cap())
        held = reserve(store, 7)
        assert 0 == store.expire_holds(held.expires_at)
        assert 1 == store.expire_holds(held.expires_at + timedelta(microseconds=1))
        assert 0 == store.expire_holds(held.expires_at + DAY)
        assert Balance(assumed=7) == balance(store)
        (row,) = stored(store)
        assert (held.id, NOON, "incomplete", EXPIRED) == (
            row.id,
            row.created_at,
            row.status,
            row.reason,
        )
        assert (None, ACME, "gpt-5-mini") == (row.price.cost_pico_usd, row.tags, row.request_model)

    @pytest.mark.parametrize(("cost", "found"), [(5, Balance(spent=5)), (None, Balance(assumed=7))])
    def test_a_late_row_corrects_it(self, store: Any, cost: int | None, found: Balance) -> None:
        declare(store, a_cap())
        held = reserve(store, 7)
        store.expire_holds(held.expires_at + DAY)
        for _ in range(2):
            store.write([settled(held, cost)])
        assert found == balance(store)
        (row,) = stored(store)
        assert ("ok", cost) == (row.status, row.price.cost_pico_usd)
        assert row.reason is not None
        assert row.reason.startswith(LATE)
        assert (100, 10) == (row.usage.input_tokens, row.usage.output_tokens)
        while store.roll_up(100):
            pass
        assert [] == list(store.verify())

    def test_two_who_find_it_at_once_make_one_row(self, store: Any) -> None:
        declare(store, a_cap())
        held = reserve(store, 7)
        store.expire_holds(held.expires_at + DAY)
        (row,) = stored(store)
        store.write([row])
        assert Balance(assumed=7) == balance(store)
        assert [(EXPIRED, 0)] == [(event.reason, event.amendments) for event in stored(store)]

    def test_a_call_that_did_come_back_is_not_corrected_when_it_is_written_again(
        self, store: Any
    ) -> None:
        declare(store, a_cap())
        event = settled(reserve(store, 7), None)
        store.write([event])
        store.write([event])
        assert Balance(assumed=7) == balance(store)
        assert [(100, 0)] == [(e.usage.input_tokens, e.amendments) for e in stored(store)]

    def test_what_is_renewed_does_not_expire(self, store: Any) -> None:
        declare(store, a_cap())
        held = reserve(store, 7)
        store.write([Renewal(held.id, NOON + DAY)])
        assert 0 == store.expire_holds(NOON + timedelta(hours=2))
        assert Balance(held=7) == balance(store)

    def test_a_result_that_comes_later_settles_under_its_own_id(self, store: Any) -> None:
        declare(store, a_cap())
        held, other = reserve(store, 7), new_id()
        store.write([Renewal(held.id, NOON + DAY, as_id=other)])
        store.write([settled(held, 99)])  # not this one
        assert Balance(spent=99, held=7) == balance(store)
        store.write([replace(settled(held, 5), id=other)])
        assert Balance(spent=104) == balance(store)

    def test_a_release_after_the_end_takes_back_what_was_assumed(self, store: Any) -> None:
        """The results of a batch have rows of their own."""
        declare(store, a_cap())
        held = reserve(store, 7)
        store.expire_holds(held.expires_at + DAY)
        store.write([an_event(2, tags=ACME), Release(held.id)])
        assert Balance(spent=2) == balance(store)


class TestPeriods:
    def test_a_call_counts_in_the_period_that_it_began_in(self, store: Any) -> None:
        declare(store, a_cap(period="day"))
        held = reserve(store, 7)
        reserve(store, 10, at=NOON + DAY)
        store.write([settled(held, 5)])
        assert Balance(spent=5) == balance(store)
        assert Balance(held=10) == balance(store, at=NOON + DAY)

    def test_days_are_those_of_the_accounting_time_zone(self, place: Place) -> None:
        """On 29 March 2026 Berlin's clocks go from 2 to 3: its day has 23 hours."""
        store = place.open(time_zone="Europe/Berlin")
        noon = datetime(2026, 3, 29, 12, tzinfo=UTC)
        declare(store, a_cap(period="day"), now=noon)
        begins = datetime(2026, 3, 28, 23, tzinfo=UTC)
        ends = datetime(2026, 3, 29, 22, tzinfo=UTC)
        second = timedelta(seconds=1)
        reserve(store, 10, at=begins - second)
        reserve(store, 10, at=begins)
        found = refused(store, 1, at=ends - second)
        assert (begins, ends) == (found.key.period_start, found.resets_at)
        reserve(store, 10, at=ends)

    def test_a_new_budget_starts_from_what_is_spent_already(self, store: Any) -> None:
        store.write([an_event(4, tags=ACME), an_event(5), an_event(7, tags={"tenant": "other"})])
        store.roll_up(2)
        declare(store, a_cap(per="tenant"), a_cap("all", 100))
        assert Balance(spent=4) == balance(store)
        assert Balance(spent=5) == balance(store, {})
        assert Balance(spent=16) == balance(store, name="all")

    def test_what_is_older_than_a_new_budget_does_not_count(self, store: Any) -> None:
        declare(store, a_cap(period="day"))
        store.write([an_event(4, tags=ACME, created_at=NOON - 9 * DAY)])
        assert Balance() == balance(store)

    def test_balances_of_long_ago_are_dropped(self, store: Any) -> None:
        declare(store, a_cap(period="day"))
        store.write([an_event(4, tags=ACME)])
        declare(store, a_cap(period="day"), now=NOON + 50 * DAY)
        with changing(store) as connection:
            count = connection.execute("SELECT count(*) FROM balances").fetchone()
        assert 0 == count[0]
        assert [] == list(store.verify_balances())


class TestWhoDeclares:
    def test_all_who_write_to_a_ledger_learn_a_budget(self, place: Place) -> None:
        one, other = place.open(), place.open()
        other.write([an_event(1, tags=ACME)])
        declare(one, a_cap())
        assert 9 == refused(other, 10).limit - refused(other, 10).spent
        declare(one, a_cap(limit=20))
        reserve(other, 10)

    def test_one_of_the_page_holds_for_all(self, place: Place) -> None:
        one, other = place.open(), place.open()
        for opened in (one, other):
            opened._caps.now = lambda: NOON
        rule = Rule.of(a_cap(where=ACME))
        one.keep_budget(rule)
        other.write([an_event(1, tags=ACME)])
        assert [rule] == list(other.page_rules(ACME))
        assert [] == list(other.page_rules({}))
        refused(other, 10)
        other.drop_budget("cap")
        one.write([an_event(1, tags=ACME)])
        assert [] == list(one.page_rules(ACME))
        reserve(one, 1000)

    def test_reports_tell_of_those_of_the_page_too(self, store: Any) -> None:
        cap = a_cap("page", 8, per="tenant", limits={"acme": from_pico(4)}, period="total")
        store._caps.now = lambda: NOON
        store.keep_budget(Rule.of(cap))
        store.write([an_event(2, tags=ACME)])
        store.keep_budget(Rule.of(a_cap("alert", 20, action="alert", period="total")))
        own = Budget("own", limit=from_pico(1), period="total")
        uses = Reports(store, [own]).budgets()
        assert [("own", "alert", 2.0), ("page", "block", 0.5), ("alert", "alert", 0.1)] == [
            (use.name, use.action, use.used) for use in uses
        ]

    def test_one_that_only_alerts_bars_nobody(self, store: Any) -> None:
        store._caps.now = lambda: NOON
        store.keep_budget(Rule.of(a_cap(action="alert")))
        store.write([an_event(25, tags=ACME)])
        assert [] == list(store.page_rules(ACME))
        with store.snapshot() as snapshot:
            assert [] == list(snapshot.limits(ACME, NOON))
        assert [] == list(store.verify_balances())

    def test_code_wins(self, store: Any) -> None:
        declare(store, a_cap())
        with pytest.raises(ConfigError, match="budget 'cap' is set in the app's code"):
            store.keep_budget(Rule.of(a_cap(limit=99)))
        reserve(store, 10)
        refused(store, 1)

    def test_a_store_that_is_opened_again_goes_on(self, place: Place) -> None:
        store = place.open()
        declare(store, a_cap())
        held = reserve(store, 7)
        store.close()
        again = place.open()
        refused(again, 4)
        again.write([settled(held, 1)])
        assert Balance(spent=1) == balance(again)


class TestCare:
    def test_verify_finds_a_balance_that_is_wrong_and_rebuild_mends_it(self, place: Place) -> None:
        store = place.open()
        declare(store, a_cap(per="tenant", period="total"))
        store.write([an_event(4, tags=ACME)])
        reserve(store, 3)
        store.roll_up(10)
        told = ("rollups = ledger: 1 call\nbalances = ledger + holds: 1 blocking budget", True)
        assert told == commands.verify(place.url, as_json=False)
        with changing(store) as connection:
            connection.execute("UPDATE balances SET spent = '5', held = '0'")
        text, agree = commands.verify(place.url, as_json=False)
        assert not agree
        assert "cap     acme  1970-01-01   spent   0.000000000005  0.000000000004" in text
        assert "2 sums differ; costmw rebuild" in text
        text, agree = commands.verify(place.url, as_json=True)
        assert not agree
        assert '"column": "held"' in text
        commands.rebuild(place.url)
        assert commands.verify(place.url, as_json=False)[1]
        assert Balance(spent=4, held=3) == balance(store)

    def test_whoever_is_forgotten_is_not_named_by_balances(self, place: Place) -> None:
        store = place.open()
        declare(store, a_cap(per="tenant"))
        store.write([settled(reserve(store, 7), None), an_event(1, tags=ACME)])
        held = reserve(store, 2)
        store.forget("tenant", "acme", substitute="nobody")
        assert Balance() == balance(store)
        assert Balance(spent=1, assumed=7, held=2) == balance(store, {"tenant": "nobody"})
        store.write([Release(held.id)])
        assert [] == list(store.verify_balances())
        with changing(store) as connection:
            for table in ("holds", "assumed_charges", "balances"):
                rows = connection.execute(f"SELECT * FROM {table}").fetchall()
                assert "acme" not in repr([tuple(row) for row in rows])

    def test_hashed_tags(self, place: Place) -> None:
        store = HashedTags(place.make(), ("tenant",))
        store.open()
        ledger = store.remote
        ledger._caps.now = lambda: NOON  # type: ignore[attr-defined]
        cap = a_cap(limit=1, per="tenant", limits={"acme": from_pico(10)})
        declare(store, cap, a_cap("other", 1, where=ACME))
        reserve(store, 10)
        found = refused(store, 1)
        assert (hash_of(store.fingerprint_key(), "tenant", "acme"),) == found.key.scope
        assert "other" == refused(store, 1, checked=("other",)).rule.name
        with store.snapshot() as snapshot:
            assert [0, 0] == [use.remaining for use in snapshot.limits(ACME, NOON)]
        with changing(ledger) as connection:
            for table in ("holds", "budgets", "balances"):
                rows = connection.execute(f"SELECT * FROM {table}").fetchall()
                assert "acme" not in repr([tuple(row) for row in rows])


class TestDamage:
    def test_budgets_and_charges_come_over_from_a_damaged_file(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        url = f"sqlite:///{path}"
        store: Any = open_store(url, Config())
        declare(store, a_cap())
        store.keep_budget(Rule.of(a_cap("page", 100)))
        store.write([settled(reserve(store, 2), None), an_event(5, tags=ACME)])
        store.close()
        content = bytearray(path.read_bytes())
        content[:100] = bytes(100)
        path.write_bytes(content)

        again: Any = open_store(url, Config())
        declare(again, a_cap())
        again._rescuer._thread.join(30)

        assert Balance(spent=5, assumed=2) == balance(again)
        assert Balance(spent=5, assumed=2) == balance(again, name="page")
        again.close()


@pytest.fixture
def away(place_of: Callable[[str], Place], tmp_path: Path) -> Iterator[Any]:
    """A Postgres store that can be away."""
    place = place_of("postgres")
    store: Any = open_store(place.url, Config(outbox=tmp_path / "outbox.db"))
    yield store
    store.close()


class TestAway:
    def test_nothing_is_granted_while_the_database_is_away(
        self, away: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away.remote._caps.now = lambda: NOON
        declare(away, a_cap())
        held = reserve(away, 5)

        def fail(*_: Any, **__: Any) -> Any:
            raise StoreError("it is away")

        with monkeypatch.context() as broken:
            broken.setattr(away.remote, "write", fail)
            asked = a_reservation(ACME, 1, checked=("cap",))
            assert "it is away" == str(away.write([asked, settled(held, 3)])[asked.id])
            assert isinstance(away.write([asked])[asked.id], StoreError)

        away._drainer.stop(0)
        assert {} == dict(away._reserve([]))
        while away.waiting():
            away._drainer.start()
        assert Balance(spent=3) == balance(away)
        reserve(away, 7)
