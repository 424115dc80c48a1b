"""What every store does alike: the same answers for the same records, to the last pico-USD."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4, uuid5
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costmw import Budget
from costmw.errors import ConfigError, StoreError
from costmw.events import Amendment, Price, Record, Submission, Usage, UsageEvent, new_id
from costmw.money import MAX_PICO
from costmw.periods import spans
from costmw.reports import Reports
from costmw.store.base import DIMENSIONS, Query, Store, Totals
from postgres_server import postgres
from rows import NOON, an_event, an_outcome
from stores import KINDS, Place, groups_of, narrow, place, place_of, store

__all__ = ["place", "place_of", "postgres", "store"]

ALL_TIME = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))
TICK = timedelta(microseconds=1)


def totals(store: Store, *group_by: str, **options: Any) -> dict[Any, Totals]:
    return groups_of(store, Query(*ALL_TIME, group_by=group_by, **options))


def stored(store: Store) -> list[UsageEvent]:
    """All events as they read now, in the order that they were committed in."""
    with store.snapshot() as snapshot:
        found = dict(snapshot.events(scope={}, limit=1_000_000))
    return [found[position] for position in sorted(found)]


class TestOpening:
    def test_a_store_that_was_not_opened_opens_at_the_first_write_or_question(
        self, place: Place
    ) -> None:
        assert [] == stored(place.make())
        place.make().write([an_event()])
        assert 1 == len(stored(place.make()))

    def test_a_closed_store_can_be_used_again(self, store: Store) -> None:
        for n in range(3):
            store.write([an_event()])
            store.close()
            assert n + 1 == len(stored(store))

    def test_stores_of_one_place_see_each_other(self, place: Place) -> None:
        one, other = place.open(), place.open()
        one.write([an_event(1, tags={"tenant": "a"})])
        other.write([an_event(2, tags={"tenant": "a"})])

        assert stored(one) == stored(other)
        assert 3 == totals(one, "tag:tenant")["a",].cost_pico_usd

    def test_the_key_for_fingerprints_is_one_for_all(self, place: Place) -> None:
        keys = {place.open().fingerprint_key() for _ in range(3)}

        assert [32] == [len(key) for key in keys]

    def test_what_is_committed_does_not_depend_on_durability(self, place: Place) -> None:
        for n, durability in enumerate(("commit", "process", "async")):
            place.open(durability=durability).write([an_event()])
            assert n + 1 == len(stored(place.make()))


class TestTimeZone:
    def test_a_new_store_counts_in_utc(self, store: Store) -> None:
        assert "UTC" == store.time_zone.key

    def test_the_zone_that_a_store_is_made_with_stays(self, place: Place) -> None:
        place.open(time_zone="Europe/Berlin")
        for options in ({}, {"time_zone": "Europe/Berlin"}):
            reopened = place.open(**options)
            assert "Europe/Berlin" == reopened.time_zone.key
            reopened.close()
            assert "Europe/Berlin" == reopened.time_zone.key

    def test_another_zone_is_refused_by_name(self, place: Place) -> None:
        place.open()
        with pytest.raises(StoreError, match="days in UTC, and time_zone asks for Asia/Tokyo"):
            place.open(time_zone="Asia/Tokyo")


class TestEvents:
    def test_an_event_reads_as_it_was_written(self, store: Store) -> None:
        full = an_event(
            created_at=datetime(2026, 3, 17, 12, 30, 15, 999_999, tzinfo=UTC),
            operation="embeddings",
            api="openai.embeddings",
            provider="openai",
            request_model="a",
            response_model="b",
            usage=Usage(2**40, 7, 6, 5, 4, {"web_searches": 3, "cache_write_5m_tokens": 5}),
            price=Price(123, "override", "override b", {"input_mtok": "0.25"}),
            status="estimated",
            reason='worked "out" \\ from {bytes}, NULL',
            tags={"tenant": "acme", "ключ": "价值"},
            request_id=new_id(),
            first_in_request=True,
            latency_ms=1500,
            time_to_first_chunk_ms=0,
            api_key_id="0123456789abcdef",
            response_id="",
            trace_id="f" * 32,
            price_context={"service_tier": "flex"},
        )
        bare = an_event(
            None,
            provider=None,
            request_model=None,
            response_model=None,
            usage=Usage(),
            status="unmetered",
        )
        store.write([full, bare])

        assert [full, bare] == stored(store)
        with store.snapshot() as snapshot:
            assert full == snapshot.event(full.id, scope={})
            assert bare == snapshot.event(bare.id, scope={})
            assert snapshot.event(new_id(), scope={}) is None

    @pytest.mark.parametrize(
        "moment",
        [
            datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
            datetime(2000, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(8999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        ],
    )
    def test_any_moment_is_kept_to_the_microsecond(self, store: Store, moment: datetime) -> None:
        store.write([an_event(3, created_at=moment)])

        assert [moment] == [event.created_at for event in stored(store)]
        found = groups_of(store, Query(moment, moment + TICK))
        assert 3 == found[()].cost_pico_usd

    @pytest.mark.parametrize("make_id", [new_id, uuid4], ids=["dated", "undated"])
    @pytest.mark.parametrize("moved", [0, 1, 40 * 86_400])
    def test_an_id_is_one_event_whatever_else_is_said_of_it(
        self, store: Store, make_id: Callable[[], Any], moved: int
    ) -> None:
        now = datetime.now(UTC)
        event = an_event(5, id=make_id(), created_at=now, tags={"tenant": "a"})
        other = replace(event, created_at=now - timedelta(seconds=moved), tags={"tenant": "b"})
        third = replace(event, created_at=now + timedelta(seconds=moved))
        store.write([event, other, an_event(6, created_at=now)])
        store.write([other])
        store.write([third, other])
        store.close()
        store.write([third])

        assert [5, 6] == [e.price.cost_pico_usd for e in stored(store)]
        assert {("a",): 1, (None,): 1} == {
            group: sums.calls for group, sums in totals(store, "tag:tenant").items()
        }

    def test_an_id_that_came_with_a_wrong_moment_is_one_event(self, store: Store) -> None:
        now = datetime.now(UTC)
        event = an_event(5, created_at=now - timedelta(days=400))
        store.write([event])
        store.write([replace(event, created_at=now)])

        assert [event] == stored(store)

    def test_an_amendment_that_is_there_already_is_skipped(self, store: Store) -> None:
        event = an_event(5)
        amendment = Amendment(event_id=event.id, reason="more", cost_pico_usd=3)
        store.write([event, amendment, amendment])
        store.write([amendment])

        assert 8 == totals(store)[()].cost_pico_usd
        assert [1] == [e.amendments for e in stored(store)]

    def test_events_are_given_newest_first_and_page_by_page(self, store: Store) -> None:
        moments = [NOON + timedelta(days=n * 7 % 90) for n in range(20)] + [NOON] * 5
        events = [an_event(n, created_at=moment) for n, moment in enumerate(moments)]
        store.write(events[:20])
        store.write(events[20:])
        seen: list[UsageEvent] = []
        before = None
        with store.snapshot() as snapshot:
            while page := snapshot.events(scope={}, limit=10, before=before):
                seen += [event for _, event in page]
                before = page[-1][0]

        assert sorted(events, key=lambda event: event.created_at) == seen[::-1]

    def test_events_of_a_span_are_given_oldest_first_and_page_by_page(self, store: Store) -> None:
        moments = [NOON + timedelta(days=n * 11 % 60) for n in range(20)] + [NOON] * 5
        events = [an_event(n, created_at=moment) for n, moment in enumerate(moments)]
        store.write(events)
        start, stop = NOON, NOON + timedelta(days=40)
        seen: list[UsageEvent] = []
        after = None
        with store.snapshot() as snapshot:
            while page := snapshot.events_between(start, stop, scope={}, limit=4, after=after):
                seen += [event for _, event in page]
                after, start = page[-1][0], page[-1][1].created_at

        inside = [event for event in events if event.created_at < stop]
        assert sorted(inside, key=lambda event: event.created_at) == seen

    def test_ids_that_are_known_are_told(self, store: Store) -> None:
        events = [an_event(id=uuid4() if n % 2 else new_id()) for n in range(10)]
        store.write(events[:5])
        with store.snapshot() as snapshot:
            assert {e.id for e in events[:5]} == snapshot.known_ids([e.id for e in events])

    @pytest.mark.parametrize(
        "record",
        [
            an_event(operation=None),
            an_event(id="no uuid"),
            an_event(created_at=datetime(2026, 1, 1)),
            an_event(2**63),
            an_event(latency_ms="fast"),
            an_event(latency_ms="1,2"),
            an_event(provider=object()),
            an_event(response_id="\ud800"),
            an_event(tags={"a": None}),
            an_event(usage=Usage(detail={"a": object()})),  # type: ignore[dict-item]
            Amendment(event_id=new_id(), reason=None),  # type: ignore[arg-type]
            Amendment(event_id=new_id(), reason="x", input_tokens=None),  # type: ignore[arg-type]
            an_outcome(None),  # type: ignore[arg-type]
            Submission("openai", None, NOON, {}),  # type: ignore[arg-type]
        ],
        ids=lambda record: type(record).__name__,
    )
    def test_a_record_that_cannot_be_stored_is_told_from_a_store_that_cannot_be_written(
        self, store: Store, record: Any
    ) -> None:
        good = an_event()
        with pytest.raises(Exception) as refused:  # noqa: PT011 - of any kind but one
            store.write([good, record])
        assert not isinstance(refused.value, StoreError)
        assert [] == stored(store)

        store.write([good])
        assert [good] == stored(store)
        assert 1 == totals(store)[()].calls

    def test_a_transaction_that_fails_leaves_no_ids_behind(self, store: Store) -> None:
        event = an_event(tags={"tenant": "new"})
        with pytest.raises(Exception):  # noqa: B017, PT011 - each database has its own
            store.write([event, an_event(2**63)])
        store.write([an_event(tags={"tenant": "other"})])
        store.write([event])

        assert {("other",): 1, ("new",): 1} == {
            group: sums.calls for group, sums in totals(store, "tag:tenant").items()
        }

    def test_nothing_is_written_of_no_records(self, store: Store) -> None:
        store.write([])

        assert {(): Totals()} == totals(store)


HOSTILE = [
    "a.b",
    "a'b",
    'a"b',
    "$",
    "$.tenant",
    "$1",
    "%",
    "%s",
    "_",
    "[0]",
    "{1,2}",
    "a\\b",
    "\\",
    "a\nb",
    "`a`",
    "--",
    "; DROP TABLE usage_events; --",
    "' OR 1=1 --",
    "') OR ('1'='1",
    "?",
    ":name",
    "?1",
    "e.id",
    "NULL",
    "(missing)",
    "\N{SNOWMAN}\N{GRINNING FACE}",
    "\u202eevil\u202c",
    "עברית",
    "e\u0301",
    "\u00e9",
    "\ufffd",
    "tag:tenant",
    "tag:",
    "",
    " ",
    "0",
    "true",
]


class TestTags:
    def test_any_key_and_value_groups_and_filters_right(self, store: Store) -> None:
        store.write([an_event(1, tags={key: value}) for key in HOSTILE for value in HOSTILE])
        store.write([an_event(10_000)])

        others = 10_000 + (len(HOSTILE) - 1) * len(HOSTILE)
        for n, key in enumerate(HOSTILE):
            grouped = {k: v.cost_pico_usd for k, v in totals(store, f"tag:{key}").items()}
            assert {(None,): others} | {(value,): 1 for value in HOSTILE} == grouped
            value = HOSTILE[(n * 5) % len(HOSTILE)]
            assert 1 == totals(store, where={key: value})[()].calls
            assert 1 == totals(store, scope={key: value})[()].calls
            assert 0 == totals(store, where={key: value + "x"})[()].calls
        with store.snapshot() as snapshot:
            assert sorted(HOSTILE) == snapshot.tag_keys(scope={})
            assert [HOSTILE[3]] == snapshot.tag_keys(scope={HOSTILE[3]: "$.tenant"})
            assert [{"$": "$.tenant"}] == [
                dict(event.tags) for _, event in snapshot.events(scope={"$": "$.tenant"}, limit=9)
            ]

    @given(
        st.lists(
            st.dictionaries(
                st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
                st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
                max_size=4,
            ),
            min_size=1,
            max_size=8,
        )
    )
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_any_text_is_a_tag(self, store: Store, tag_sets: list[dict[str, str]]) -> None:
        mark = str(uuid4())
        events = [an_event(tags={**tags, mark: "x"}) for tags in tag_sets]
        store.write(events)
        key = next((key for tags in tag_sets for key in tags), "none")

        with store.snapshot() as snapshot:
            found = snapshot.events(scope={mark: "x"}, limit=100)
        assert events == [event for _, event in reversed(found)]
        assert Counter(tags.get(key) for tags in tag_sets) == {
            group[0]: sums.calls
            for group, sums in totals(store, f"tag:{key}", where={mark: "x"}).items()
        }

    def test_tags_of_many_values_are_counted_right(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Beyond some values a key has no pairs and hours, beyond more no rollups at all."""
        narrow(monkeypatch, paired=4, rolled=9)
        for n in range(14):
            event = an_event(1, tags={"user": str(n), "tenant": str(n % 2)}, latency_ms=n)
            store.write([event, an_event(1, tags={"user": "0", "tenant": "1"})])
            store.write([Amendment(event_id=event.id, reason="x", cost_pico_usd=1)])
            expected = {(str(user),): 2 for user in range(n + 1)}
            expected["0",] += n + 1
            asked = totals(store, "tag:user")
            assert expected == {group: sums.cost_pico_usd for group, sums in asked.items()}
            both = totals(store, "tag:user", where={"tenant": "1"})
            assert n + 1 + 2 * ((n + 1) // 2) == sum(sums.cost_pico_usd for sums in both.values())
            hours = Query(NOON, NOON + timedelta(hours=3), ("tag:user",))
            assert expected == {k: v.cost_pico_usd for k, v in groups_of(store, hours).items()}

    @pytest.mark.parametrize("name", ["e.id", "seq", "1; --", "", "tags", "bucket", "Model"])
    def test_what_cannot_be_grouped_by_is_refused_with_what_can(
        self, store: Store, name: str
    ) -> None:
        with pytest.raises(ConfigError, match=r"cannot group by .*model, provider.*tag:<key>"):
            totals(store, name)

    def test_combinations_of_tags_and_columns_group_right(self, store: Store) -> None:
        store.write(
            [
                an_event(n, provider=p, tags={"a": a, "b": b} if b else {"a": a})
                for n, (p, a, b) in enumerate(
                    [
                        ("x", "1", "1"),
                        ("x", "1", "2"),
                        ("y", "1", "1"),
                        ("x", "1", "1"),
                        (None, "2", None),
                    ]
                )
            ]
        )

        assert {
            ("1", "x", "1"): 0 + 3,
            ("2", "x", "1"): 1,
            ("1", "y", "1"): 2,
            (None, None, "2"): 4,
        } == {k: v.cost_pico_usd for k, v in totals(store, "tag:b", "provider", "tag:a").items()}

    def test_rows_can_be_grouped_by_every_dimension(self, store: Store) -> None:
        store.write([an_event(api_key_id="k"), an_event(None, status="unmetered")])

        found = {name: {group[0] for group in totals(store, name)} for name in DIMENSIONS}
        assert {
            "model": {"gpt-5-mini"},
            "provider": {"openai"},
            "operation": {"chat"},
            "status": {"ok", "unmetered"},
            "cost_source": {"list", "none"},
            "api_key_id": {"k", None},
        } == found

    def test_long_names_are_kept_and_grouped_by(self, store: Store) -> None:
        rng = random.Random(1)
        names = ["".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(4_000)) for _ in "ab"]
        store.write([an_event(1, response_model=name, tags={"tenant": name}) for name in names])

        for dimension in ("model", "tag:tenant"):
            assert {(name,) for name in names} == set(totals(store, dimension))
        assert 1 == totals(store, where={"tenant": names[1]})[()].calls


class TestSums:
    def test_sums_beyond_64_bits_are_exact(self, store: Store) -> None:
        costs = [MAX_PICO - n for n in range(500)]
        store.write([an_event(cost, request_id=new_id()) for cost in costs])
        store.write([an_event(cost, status="estimated") for cost in costs])

        sums = totals(store)[()]
        assert sum(costs) == sums.cost_pico_usd == sums.estimated_cost_pico_usd
        assert sum(costs) == sums.cost_in_requests_pico_usd
        assert sum(costs) > 2**71
        by_day = totals(store, "model", buckets=ALL_TIME[:1])
        assert sum(costs) == by_day[0, "gpt-5-mini"].cost_pico_usd

    @given(st.lists(st.tuples(st.integers(0, MAX_PICO), st.integers(-MAX_PICO, MAX_PICO))))
    @settings(
        max_examples=20,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_any_amounts_and_corrections_sum_exactly(
        self, store: Store, amounts: list[tuple[int, int]]
    ) -> None:
        mark = {"run": str(uuid4())}
        for cost, delta in amounts:
            event = an_event(cost, tags=mark)
            store.write([event, Amendment(event_id=event.id, reason="x", cost_pico_usd=delta)])

        assert sum(map(sum, amounts)) == totals(store, where=mark)[()].cost_pico_usd
        with store.snapshot() as snapshot:
            found = snapshot.events(scope=mark, limit=1000)
        assert [sum(pair) for pair in reversed(amounts)] == [
            event.price.cost_pico_usd for _, event in found
        ]

    def test_a_cost_that_is_not_known_is_counted_and_never_zero(self, store: Store) -> None:
        store.write([an_event(None), an_event(None, status="incomplete"), an_event(0)])

        sums = totals(store)[()]
        assert (3, 2, 0) == (sums.calls, sums.unpriced, sums.cost_pico_usd)
        assert (1, 0) == (sums.incomplete, sums.flagged)
        assert [None, None, 0] == [event.price.cost_pico_usd for event in stored(store)]

    def test_tokens_that_are_not_known_stay_unknown(self, store: Store) -> None:
        store.write([an_event(usage=Usage(None, 5)), an_event(usage=Usage(7, None))])

        assert [(None, 5), (7, None)] == [
            (event.usage.input_tokens, event.usage.output_tokens) for event in stored(store)
        ]
        sums = totals(store)[()]
        assert (7, 5) == (sums.input_tokens, sums.output_tokens)

    def test_exact_and_estimated_money_are_summed_apart(self, store: Store) -> None:
        store.write(
            [
                an_event(1),
                an_event(10, status="estimated"),
                an_event(100, status="incomplete"),
                an_event(1000, reason="leaves something out", request_id=new_id()),
                an_event(10_000, status="estimated", request_id=new_id(), first_in_request=True),
            ]
        )

        sums = totals(store)[()]
        assert (1001, 10_110) == (sums.cost_pico_usd, sums.estimated_cost_pico_usd)
        assert (11_000, 1) == (sums.cost_in_requests_pico_usd, sums.requests)
        assert (1, 3) == (sums.flagged, sums.incomplete)

    def test_start_is_inclusive_and_stop_exclusive_to_the_microsecond(self, store: Store) -> None:
        store.write([an_event(n, created_at=NOON + (n - 2) * TICK) for n in range(1, 6)])

        found = groups_of(store, Query(NOON, NOON + 2 * TICK))
        split = groups_of(
            store, Query(NOON, NOON + 3 * TICK, buckets=(NOON, NOON + TICK, NOON + 2 * TICK))
        )
        assert 2 + 3 == found[()].cost_pico_usd
        assert {(0,): 2, (1,): 3, (2,): 4} == {k: v.cost_pico_usd for k, v in split.items()}

    def test_groups_without_rows_are_left_out(self, store: Store) -> None:
        assert {} == totals(store, "model")
        assert {} == totals(store, buckets=ALL_TIME[:1])
        assert {(): Totals()} == totals(store)

    def test_many_buckets_are_answered(self, store: Store) -> None:
        store.write([an_event(1), an_event(2, created_at=NOON + timedelta(days=900))])
        hours = tuple(NOON + timedelta(hours=n) for n in range(24 * 1000))
        with store.snapshot() as snapshot:
            found = snapshot.totals(Query(NOON, hours[-1], buckets=hours)).groups

        assert {(0,): 1, (24 * 900,): 2} == {k: v.cost_pico_usd for k, v in found.items()}


class TestDaysOfZones:
    @pytest.mark.parametrize(
        ("zone", "first_day"),
        [
            ("Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC)),  # a day of 23 hours
            ("Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC)),  # of 25
            ("Australia/Lord_Howe", datetime(2026, 4, 4, tzinfo=UTC)),  # half an hour more
            ("Australia/Lord_Howe", datetime(2026, 10, 3, tzinfo=UTC)),  # and less
            ("Asia/Kathmandu", datetime(2026, 3, 28, tzinfo=UTC)),  # a quarter past
            ("America/Sao_Paulo", datetime(2018, 11, 3, tzinfo=UTC)),  # a day without midnight
        ],
    )
    def test_hours_days_and_months_are_those_of_the_zone(
        self, place: Place, zone: str, first_day: datetime
    ) -> None:
        store = place.open(time_zone=zone)
        moments = [first_day + timedelta(minutes=10 * n) for n in range(3 * 144)]
        store.write([an_event(2**n % 1009, created_at=at) for n, at in enumerate(moments)])
        start, stop = first_day + timedelta(hours=1), first_day + timedelta(days=2, minutes=35)
        for every in ("hour", "day", "month"):
            buckets = tuple(spans(start, stop, every, ZoneInfo(zone)))  # type: ignore[arg-type]
            expected: Counter[tuple[int]] = Counter()
            for n, at in enumerate(moments):
                if start <= at < stop:
                    expected[(sum(bucket <= at for bucket in buckets) - 1,)] += 2**n % 1009
            found = groups_of(store, Query(start, stop, buckets=buckets))
            assert expected == {group: sums.cost_pico_usd for group, sums in found.items()}


class TestAmendments:
    """What is corrected later shows wherever money is told."""

    def amended(self, store: Store, event: UsageEvent, **changes: Any) -> UsageEvent:
        store.write([Amendment(event_id=event.id, reason="a correction", **changes)])
        with store.snapshot() as snapshot:
            found = snapshot.event(event.id, scope={})
        assert found is not None
        assert [found] == [e for e in stored(store) if e.id == event.id]
        return found

    def test_an_event_without_a_cost_gets_one(self, store: Store) -> None:
        event = an_event(None, tags={"tenant": "acme"}, request_id=new_id())
        store.write([event, an_event(5, tags={"tenant": "acme"})])
        price = Price(70, "override", "override x", {"input_mtok": "0.7"})

        found = self.amended(store, event, price=price, cost_pico_usd=70, unpriced=-1)

        assert (price, "a correction") == (found.price, found.reason)
        sums = totals(store, "tag:tenant")["acme",]
        assert (2, 0, 75) == (sums.calls, sums.unpriced, sums.cost_pico_usd)
        assert 70 == sums.cost_in_requests_pico_usd
        assert {("override",): 70, ("list",): 5} == {
            group: sums.cost_pico_usd for group, sums in totals(store, "cost_source").items()
        }

    def test_a_cost_that_turns_out_unknown_is_taken_back(self, store: Store) -> None:
        event, priced = an_event(None), an_event(9)
        store.write([event, priced])
        self.amended(store, event, cost_pico_usd=70, unpriced=-1)
        found = self.amended(store, event, cost_pico_usd=-70, unpriced=1, price=Price(None, "none"))
        assert found.price.cost_pico_usd is None
        assert (1, 9) == (totals(store)[()].unpriced, totals(store)[()].cost_pico_usd)

        assert self.amended(store, priced, cost_pico_usd=-9, unpriced=1).price.cost_pico_usd is None
        assert (2, 0) == (totals(store)[()].unpriced, totals(store)[()].cost_pico_usd)

    def test_an_incomplete_event_becomes_exact(self, store: Store) -> None:
        event = an_event(40, status="incomplete", usage=Usage(100, None), tags={"tenant": "acme"})
        store.write([event])

        found = self.amended(
            store,
            event,
            status="ok",
            cost_pico_usd=55,
            estimated_cost_pico_usd=-40,
            output_tokens=30,
            cache_read_input_tokens=7,
            reasoning_output_tokens=3,
        )

        assert ("ok", 55) == (found.status, found.price.cost_pico_usd)
        assert Usage(100, 30, 7, 0, 3) == found.usage
        sums = totals(store)[()]
        assert (55, 0, 0) == (sums.cost_pico_usd, sums.estimated_cost_pico_usd, sums.incomplete)
        assert (100, 30, 7, 3) == (
            sums.input_tokens,
            sums.output_tokens,
            sums.cache_read_input_tokens,
            sums.reasoning_output_tokens,
        )
        assert {("ok",): 55} == {k: v.cost_pico_usd for k, v in totals(store, "status").items()}

    def test_a_status_is_counted_once_however_often_it_is_amended(self, store: Store) -> None:
        settled, doubted, twice = (
            an_event(1, status=status, tags={"case": str(n)})
            for n, status in enumerate(("incomplete", "ok", "ok"))
        )
        store.write([settled, doubted, twice])
        self.amended(store, settled, status="ok")
        self.amended(store, settled, status="ok", cost_pico_usd=1)
        self.amended(store, settled, cost_pico_usd=1)
        self.amended(store, doubted, status="incomplete")
        self.amended(store, doubted, status="estimated")
        self.amended(store, twice, status="estimated")
        self.amended(store, twice, status="ok")

        assert {("0",): 0, ("1",): 1, ("2",): 0} == {
            group: sums.incomplete for group, sums in totals(store, "tag:case").items()
        }
        assert {("ok",): 2, ("estimated",): 1} == {
            group: sums.calls for group, sums in totals(store, "status").items()
        }

    def test_several_amendments_in_one_batch_add_up(self, store: Store) -> None:
        old, new = an_event(10, tags={"n": "old"}), an_event(20, tags={"n": "new"})
        early = [
            Amendment(event_id=event.id, reason=str(n), cost_pico_usd=n, status="estimated")
            for n in (1, 2)
            for event in (old, new)
        ]
        store.write([old, early[0]])
        store.write([*early, new, Amendment(event_id=old.id, reason="last", status="ok")])

        assert {("old",): (13, 0), ("new",): (23, 1)} == {
            k: (v.cost_pico_usd, v.incomplete) for k, v in totals(store, "tag:n").items()
        }

    def test_corrections_add_up(self, store: Store) -> None:
        event = an_event(10**12)
        store.write([event])
        for delta in (1, -5, -(10**12), 3):
            found = self.amended(store, event, cost_pico_usd=delta)

        assert -1 == found.price.cost_pico_usd == totals(store)[()].cost_pico_usd

    def test_an_amendment_may_come_before_its_event(self, store: Store) -> None:
        event = an_event(5)
        price = Price(7, "provider")
        store.write([Amendment(event_id=event.id, reason="early", cost_pico_usd=2, price=price)])
        assert {(): Totals()} == totals(store)

        store.write([event])
        assert 7 == totals(store)[()].cost_pico_usd
        assert {("provider",): 1} == {k: v.calls for k, v in totals(store, "cost_source").items()}
        assert [7] == [e.price.cost_pico_usd for e in stored(store)]

    def test_an_amendment_counts_in_the_period_of_its_event(self, store: Store) -> None:
        event = an_event(5)
        store.write([event])
        self.amended(store, event, cost_pico_usd=2, at=NOON + timedelta(days=90))

        day = timedelta(days=1)
        found = groups_of(store, Query(NOON, NOON + day, buckets=(NOON, NOON + day / 2)))
        assert {(0,): 7} == {group: sums.cost_pico_usd for group, sums in found.items()}

    def test_budgets_see_amended_money(self, store: Store) -> None:
        event = an_event(4 * 10**12, tags={"tenant": "acme"})
        store.write([event])
        self.amended(store, event, cost_pico_usd=-(10**12), estimated_cost_pico_usd=2 * 10**12)
        budget = Budget("cap", limit="10", per="tenant", period="total")

        (use,) = Reports(store, [budget]).budgets()

        assert (Decimal(5), 0.5) == (use.spent_usd, use.used)

    def test_amendments_do_not_count_calls_requests_or_latency_again(self, store: Store) -> None:
        event = an_event(1, request_id=new_id(), first_in_request=True, latency_ms=90)
        store.write([event])
        self.amended(store, event, cost_pico_usd=1)

        sums = totals(store)[()]
        assert (1, 1, 90, 1) == (sums.calls, sums.requests, sums.latency_ms, sums.timed)


class TestSubmissions:
    """A result that is read later belongs to who asked for it."""

    ASKED = Submission(
        "openai",
        "resp_1",
        datetime.now(UTC) - timedelta(days=1),  # old ones are forgotten
        {"tenant": "acme"},
        request_id=new_id(),
        first_in_request=True,
        api_key_id="k1",
    )

    def test_a_result_takes_who_asked_and_when_from_its_submission(self, store: Store) -> None:
        store.write([self.ASKED])
        store.write([an_event(5, submitted_as="resp_1", tags={"tenant": "reader"})])
        store.write([an_event(6, submitted_as="resp_1", provider="anthropic")])

        result, other = stored(store)
        asked = self.ASKED
        assert (asked.created_at, asked.tags, asked.request_id, asked.api_key_id, True) == (
            result.created_at,
            result.tags,
            result.request_id,
            result.api_key_id,
            result.first_in_request,
        )
        assert (NOON, {}) == (other.created_at, other.tags)
        assert {("k1",): 5, (None,): 6} == {
            k: v.cost_pico_usd for k, v in totals(store, "api_key_id").items()
        }

    def test_many_results_of_one_submission_are_one_web_request(self, place: Place) -> None:
        store = place.open()
        store.write([self.ASKED, *(an_event(submitted_as="resp_1") for _ in range(3))])
        place.open().write([an_event(submitted_as="resp_1")])

        sums = totals(store, "tag:tenant")["acme",]
        assert (4, 1) == (sums.calls, sums.requests)

    def test_a_result_is_one_row_whoever_reads_it_and_whenever(self, place: Place) -> None:
        name = uuid5(uuid4(), "openai/resp_1")
        one, other = place.open(), place.open()
        event = an_event(5, id=name, submitted_as="resp_1")
        one.write([event])  # before it is known who asked
        other.write([self.ASKED])
        other.write([replace(event, created_at=NOON + timedelta(days=50))])
        one.write([self.ASKED, event])

        assert [event.created_at] == [e.created_at for e in stored(one)]
        assert 1 == totals(one)[()].calls

    def test_the_first_to_say_who_asked_is_believed(self, store: Store) -> None:
        store.write([self.ASKED, replace(self.ASKED, tags={"tenant": "thief"})])
        store.write([an_event(submitted_as="resp_1")])

        assert [{"tenant": "acme"}] == [event.tags for event in stored(store)]

    def test_a_second_id_of_a_submission_is_as_good(self, store: Store) -> None:
        second = replace(self.ASKED, result_id="file_1", alias_of="resp_1", tags={})
        unknown = replace(self.ASKED, result_id="file_2", alias_of="resp_2")
        store.write([self.ASKED, second, second, unknown])
        store.write([an_event(submitted_as="file_1"), an_event(submitted_as="file_2")])

        assert [{"tenant": "acme"}, {}] == [event.tags for event in stored(store)]


class TestOutcomes:
    def counted(self, store: Store, start: datetime, stop: datetime, **scope: str) -> Any:
        with store.snapshot() as snapshot:
            return {row.kind: row.count for row in snapshot.outcomes(start, stop, scope=scope)}

    def test_a_span_counts_from_its_first_hour_to_its_stop(self, store: Store) -> None:
        store.write([an_outcome("error"), an_outcome("error"), an_outcome("retry")])
        store.write([an_outcome("error", at=NOON + timedelta(hours=1))])

        assert {"error": 3, "retry": 1} == self.counted(store, *ALL_TIME)
        late = NOON + timedelta(minutes=59)
        assert {"error": 3, "retry": 1} == self.counted(store, late, ALL_TIME[1])
        assert {"error": 1} == self.counted(store, NOON + timedelta(hours=1), ALL_TIME[1])
        assert {} == self.counted(store, ALL_TIME[0], NOON)
        assert {"error": 2, "retry": 1} == self.counted(store, ALL_TIME[0], NOON + TICK)

    def test_the_most_frequent_come_first_and_unknown_names_are_none(self, store: Store) -> None:
        store.write([an_outcome("retry"), an_outcome("error"), an_outcome("error")])
        nameless = {"provider": None, "model": None}
        store.write([replace(an_outcome("refused"), **nameless) for _ in range(3)])

        with store.snapshot() as snapshot:
            rows = snapshot.outcomes(*ALL_TIME, scope={})
        assert [("refused", None, None, 3)] == [
            (row.kind, row.provider, row.model, row.count) for row in rows[:1]
        ]
        assert [3, 2, 1] == [row.count for row in rows]


class TestScope:
    """A reader that is confined to some tags sees the rows that have them all, and no more."""

    def fill(self, store: Store) -> list[UsageEvent]:
        tag_sets = [
            {"tenant": "acme", "team": "a"},
            {"tenant": "acme", "team": "b", "secret": "x"},
            {"tenant": "other", "team": "a", "hidden": "y"},
            {"team": "a"},
            {},
        ]
        events = [an_event(10**n, tags=tags) for n, tags in enumerate(tag_sets)]
        store.write(events)
        for n, event in enumerate(events):
            store.write([Amendment(event_id=event.id, reason="x", cost_pico_usd=10**n)])
        store.write([an_outcome(tags={"tenant": "acme"}), an_outcome(tags={"tenant": "other"})])
        store.write([an_outcome(tags={})])
        return events

    @pytest.mark.parametrize(
        ("scope", "seen"),
        [
            ({}, [0, 1, 2, 3, 4]),
            ({"tenant": "acme"}, [0, 1]),
            ({"tenant": "acme", "team": "a"}, [0]),
            ({"team": "a"}, [0, 2, 3]),
            ({"tenant": "nobody"}, []),
            ({"tenant": ""}, []),
            ({"no such key": "a"}, []),
        ],
    )
    def test_every_answer_is_confined(
        self, store: Store, scope: dict[str, str], seen: list[int]
    ) -> None:
        events = self.fill(store)
        expected = sum(2 * 10**n for n in seen)

        assert expected == totals(store, scope=scope)[()].cost_pico_usd
        for name in ("tag:tenant", "tag:hidden", "model", "status"):
            grouped = totals(store, name, scope=scope)
            assert expected == sum(sums.cost_pico_usd for sums in grouped.values())
            assert len(seen) == sum(sums.calls for sums in grouped.values())
        by_time = totals(store, scope=scope, buckets=ALL_TIME[:1])
        assert expected == sum(sums.cost_pico_usd for sums in by_time.values())
        with store.snapshot() as snapshot:
            assert [events[n].id for n in reversed(seen)] == [
                event.id for _, event in snapshot.events(scope=scope, limit=100)
            ]
            assert [events[n].id for n in seen] == [
                event.id for _, event in snapshot.events_between(*ALL_TIME, scope=scope, limit=100)
            ]
            assert [n in seen for n in range(5)] == [
                snapshot.event(event.id, scope=scope) is not None for event in events
            ]
            assert sorted({key for n in seen for key in events[n].tags}) == snapshot.tag_keys(
                scope=scope
            )

    def test_a_scope_and_a_question_both_confine(self, store: Store) -> None:
        self.fill(store)

        assert 2 == totals(store, scope={"tenant": "acme"}, where={"team": "a"})[()].cost_pico_usd
        both = totals(store, scope={"tenant": "acme"}, where={"tenant": "other"})
        assert 0 == both[()].calls

    def test_outcomes_know_route_and_tenant_only(self, store: Store) -> None:
        self.fill(store)
        with store.snapshot() as snapshot:

            def count(**scope: str) -> int:
                return sum(row.count for row in snapshot.outcomes(*ALL_TIME, scope=scope))

            assert (3, 1) == (count(), count(tenant="acme"))
            assert (0, 0) == (count(team="a"), count(tenant="acme", team="a"))


class TestSnapshots:
    def test_a_snapshot_stays_as_it_was_while_writes_go_on(self, store: Store) -> None:
        stop = threading.Event()
        failures: list[BaseException] = []
        written = threading.Semaphore(0)

        def write() -> None:
            try:
                while not stop.is_set():
                    event = an_event(7)
                    store.write([event, Amendment(event_id=event.id, reason="x", cost_pico_usd=-7)])
                    written.release()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(20):
                assert written.acquire(timeout=30)
                with store.snapshot() as snapshot:
                    position = snapshot.position()
                    first = snapshot.totals(Query(*ALL_TIME)).groups[()]
                    for _ in range(2):
                        assert written.acquire(timeout=30)
                    assert first == snapshot.totals(Query(*ALL_TIME)).groups[()]
                    assert 0 == first.cost_pico_usd
                    assert first.calls == len(snapshot.events(scope={}, limit=10**6))
                    assert position == snapshot.position()
        finally:
            stop.set()
            thread.join()
        assert [] == failures

    def test_a_snapshot_is_of_the_moment_when_it_was_opened(self, store: Store) -> None:
        store.write([an_event()])
        with store.snapshot() as snapshot:
            store.write([an_event()])
            assert 1 == snapshot.totals(Query(*ALL_TIME)).groups[()].calls
        assert 2 == totals(store)[()].calls

    def test_a_snapshot_cannot_write(self, store: Store) -> None:
        with pytest.raises(StoreError, match="read-only"), store.snapshot() as snapshot:
            snapshot._rows("DELETE FROM usage_events")  # type: ignore[attr-defined]

    def test_the_position_grows_with_every_event_and_amendment(self, store: Store) -> None:
        def position() -> int:
            with store.snapshot() as snapshot:
                return snapshot.position()

        positions = [position()]
        event = an_event()
        for record in (event, Amendment(event_id=event.id, reason="x"), an_event()):
            store.write([record])
            positions.append(position())

        assert 4 == len(set(positions))
        assert sorted(positions) == positions
        assert positions[-1] == position()

    def test_errors_of_whoever_holds_a_snapshot_are_their_own(self, store: Store) -> None:
        for error in (OSError(2, "gone"), ValueError("x")):
            with pytest.raises(type(error)) as caught, store.snapshot():
                raise error
            assert caught.value is error


class TestSeveralWriters:
    def test_threads_with_stores_of_their_own_lose_nothing(self, place: Place) -> None:
        stores = [place.open() for _ in range(4)]
        event = an_event(5, tags={"n": "amended"})
        stores[0].write([event])
        failures: list[BaseException] = []

        def write(store: Store, first: int) -> None:
            try:
                for n in range(15):
                    tags = {"n": str((n * 7 + first) % 10), "user": f"{first}-{n}"}
                    store.write(
                        [
                            *(an_event(1, tags=tags, api_key_id=f"k{n % 3}") for _ in range(5)),
                            Amendment(event_id=event.id, reason="x", cost_pico_usd=1),
                            an_outcome(tags={"tenant": str(n % 2)}),
                        ]
                    )
            except BaseException as error:
                failures.append(error)

        threads = [
            threading.Thread(target=write, args=(store, n)) for n, store in enumerate(stores)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [] == failures
        assert 4 * 15 * 5 + 5 + 4 * 15 == totals(stores[0])[()].cost_pico_usd
        by_n = totals(stores[1], "tag:n")
        expected = Counter((n * 7 + first) % 10 for n in range(15) for first in range(4))
        assert {("amended",): 1} | {(str(n),): 5 * count for n, count in expected.items()} == {
            group: sums.calls for group, sums in by_n.items()
        }
        with stores[2].snapshot() as snapshot:
            assert 4 * 15 == sum(row.count for row in snapshot.outcomes(*ALL_TIME, scope={}))


def random_records(rng: random.Random, count: int, start: datetime) -> list[Record]:
    """Records of all sorts round a moment, some of them twice."""
    records: list[Record] = []
    events: list[UsageEvent] = []
    for _ in range(count):
        choice = rng.random()
        at = start + timedelta(microseconds=rng.randrange(9 * 86_400 * 10**6))
        tags = {
            key: rng.choice(values)
            for key, values in (
                ("tenant", ["a", "b", "ü'"]),
                ("user", [str(n) for n in range(300)]),
                ("route", ["/chat", "/chat/{id}"]),
            )
            if rng.random() < 0.7
        }
        if choice < 0.2 and events:
            event = rng.choice(events)
            records.append(
                Amendment(
                    event_id=event.id,
                    reason="corrected",
                    at=at,
                    status=rng.choice([None, "ok", "estimated"]),
                    price=rng.choice([None, Price(1, "override", "mine", {"input_mtok": "1"})]),
                    cost_pico_usd=rng.randrange(-5000, 5000),
                    estimated_cost_pico_usd=rng.randrange(-50, 50),
                    unpriced=rng.choice([0, 0, -1, 1]),
                    input_tokens=rng.randrange(-5, 50),
                )
            )
        elif choice < 0.25:
            submission = Submission(
                "openai", f"r{rng.randrange(5)}", at, tags, new_id(), rng.random() < 0.5, "k2"
            )
            records.append(submission)
        elif choice < 0.3:
            records.append(an_outcome("error", at=at, tags=tags))
        else:
            cost = rng.choice([None, 0, rng.randrange(10**15), MAX_PICO])
            event = an_event(
                cost,
                id=rng.choice([new_id, uuid4])(),
                created_at=at,
                provider=rng.choice(["openai", "anthropic", None]),
                response_model=rng.choice(["m1", "m2", None]),
                status=rng.choice(["ok", "ok", "estimated", "incomplete"]),
                reason=rng.choice([None, "why"]) if cost is not None else "no price",
                tags=tags,
                usage=Usage(rng.choice([None, 5]), rng.randrange(2**40), rng.randrange(3)),
                request_id=rng.choice([None, new_id()]),
                first_in_request=rng.random() < 0.3,
                latency_ms=rng.choice([None, rng.randrange(90_000)]),
                api_key_id=rng.choice([None, "k1"]),
                submitted_as=rng.choice([None] * 9 + [f"r{rng.randrange(5)}"]),
            )
            events.append(event)
            records.append(event)
        if rng.random() < 0.05 and not isinstance(records[-1], type(an_outcome())):
            records.append(records[-1])
    return records


def random_question(rng: random.Random, start: datetime, zone: ZoneInfo) -> Query:
    tags = [("tenant", "a"), ("tenant", "ü'"), ("route", "/chat"), ("user", "7"), ("no", "x")]
    names = [*DIMENSIONS, "tag:tenant", "tag:route", "tag:user", "tag:no"]
    first = start + rng.choice(
        [timedelta(0), timedelta(hours=rng.randrange(200)), timedelta(seconds=rng.randrange(10**6))]
    )
    last = first + rng.choice([timedelta(days=30), timedelta(minutes=rng.randrange(1, 9_000))])
    every = rng.choice([None, "hour", "day", "month"])
    return Query(
        first,
        last,
        tuple(rng.sample(names, rng.choice([0, 1, 1, 2]))),
        tuple(spans(first, last, every, zone)) if every else (),  # type: ignore[arg-type]
        dict(rng.sample(tags, rng.choice([0, 0, 1]))),
        dict(rng.sample(tags, rng.choice([0, 1]))),
    )


@pytest.mark.parametrize("seed", range(4))
def test_all_stores_give_identical_answers(place_of: Callable[[str], Place], seed: int) -> None:
    rng = random.Random(seed)
    zone = rng.choice(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/New_York"])
    start = datetime(2026, rng.choice([3, 10]), 24, tzinfo=UTC)
    stores = [place_of(kind).open(time_zone=zone) for kind in KINDS]
    records = random_records(rng, 400, start)
    while records:
        size = rng.randrange(1, 80)
        # In one batch stores may differ in whether a result knows of a later submission.
        some = sorted(records[:size], key=lambda record: not isinstance(record, Submission))
        records = records[size:]
        for each in stores:
            each.write(some)
        if rng.random() < 0.3:
            stores[0].roll_up(rng.randrange(1, 60))
    for _ in range(60):
        query = random_question(rng, start, ZoneInfo(zone))
        answers = []
        for each in stores:
            with each.snapshot() as snapshot:
                answers.append(dict(snapshot.totals(query).groups))
        assert all(answer == answers[0] for answer in answers), query
    views = []
    for each in stores:
        with each.snapshot() as snapshot:
            views.append(
                (
                    [event for _, event in snapshot.events(scope={}, limit=10_000)],
                    [e for _, e in snapshot.events_between(*ALL_TIME, scope={}, limit=10_000)],
                    list(snapshot.tag_keys(scope={})),
                    list(snapshot.outcomes(*ALL_TIME, scope={})),
                )
            )
    assert all(view == views[0] for view in views)
