"""Days, weeks and months: as long as the clocks on the wall say."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmw.periods import Granularity, midnight, next_month, period_span, spans

HOUR = timedelta(hours=1)
MOMENT = timedelta(microseconds=1)

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",  # the clocks change at midnight
    "America/Havana",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kolkata",  # half an hour off
    "Asia/Kathmandu",  # a quarter
    "Australia/Lord_Howe",  # changes by half an hour
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
]
MOMENTS = st.datetimes(datetime(2012, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("UTC", date(2026, 3, 29), 24),
        ("Europe/Berlin", date(2026, 3, 28), 24),
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("America/New_York", date(2026, 3, 8), 23),
        ("America/New_York", date(2026, 11, 1), 25),
        ("Asia/Beirut", date(2026, 3, 29), 23),  # 00:00 does not exist
        ("America/Havana", date(2026, 3, 8), 23),  # 00:00 does not exist
        ("America/Havana", date(2026, 11, 1), 25),  # 00:00 comes twice
        ("America/Sao_Paulo", date(2018, 11, 4), 23),  # 00:00 does not exist
        ("America/Sao_Paulo", date(2018, 2, 17), 25),  # 23:00 comes twice
        ("Australia/Lord_Howe", date(2026, 10, 4), 23.5),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
    ],
)
def test_a_day_has_as_many_hours_as_the_clocks_say(zone: str, day: date, hours: float) -> None:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(zone))

    start, stop = period_span("day", noon, ZoneInfo(zone))

    assert timedelta(hours=hours) == stop - start
    assert (UTC, UTC) == (start.tzinfo, stop.tzinfo)


@settings(deadline=None)
@given(MOMENTS, st.sampled_from(ZONES))
def test_a_day_holds_all_moments_of_its_date_and_no_other(at: datetime, name: str) -> None:
    zone = ZoneInfo(name)
    today = at.astimezone(zone).date()

    start, stop = period_span("day", at, zone)

    assert start <= at < stop
    assert today == start.astimezone(zone).date() == (stop - MOMENT).astimezone(zone).date()
    assert today - timedelta(days=1) == (start - MOMENT).astimezone(zone).date()
    assert today + timedelta(days=1) == stop.astimezone(zone).date()


@settings(deadline=None)
@given(MOMENTS, st.sampled_from(ZONES))
def test_a_week_runs_from_monday_to_sunday(at: datetime, name: str) -> None:
    zone = ZoneInfo(name)

    start, stop = period_span("week", at, zone)

    assert start <= at < stop
    first, last = start.astimezone(zone).date(), (stop - MOMENT).astimezone(zone).date()
    assert (0, 6) == (first.weekday(), last.weekday())
    assert timedelta(days=6) == last - first
    assert midnight(first, zone) == start


@settings(deadline=None)
@given(MOMENTS, st.sampled_from(ZONES))
def test_a_month_runs_from_its_first_to_its_last_day(at: datetime, name: str) -> None:
    zone = ZoneInfo(name)
    local = at.astimezone(zone)

    start, stop = period_span("month", at, zone)

    assert start <= at < stop
    first, last = start.astimezone(zone), (stop - MOMENT).astimezone(zone)
    assert (local.year, local.month, 1) == (first.year, first.month, first.day)
    assert (local.year, local.month) == (last.year, last.month)
    assert 1 == stop.astimezone(zone).day
    assert 1 != (start - MOMENT).astimezone(zone).day


@pytest.mark.parametrize(
    ("day", "after"),
    [
        (date(2026, 1, 31), date(2026, 2, 1)),
        (date(2026, 2, 1), date(2026, 3, 1)),
        (date(2028, 2, 29), date(2028, 3, 1)),
        (date(2026, 12, 1), date(2027, 1, 1)),
    ],
)
def test_the_next_month_begins_on_its_first(day: date, after: date) -> None:
    assert after == next_month(day)


def test_total_is_all_of_time() -> None:
    start, stop = period_span("total", datetime(2026, 1, 1, tzinfo=UTC), ZoneInfo("Asia/Tokyo"))

    assert datetime(1970, 1, 1, tzinfo=UTC) == start
    assert datetime(9999, 1, 1, tzinfo=UTC) == stop


def test_the_day_of_a_moment_is_the_one_in_the_zone() -> None:
    late = datetime(2026, 7, 1, 23, 30, tzinfo=UTC)

    assert date(2026, 7, 1) == period_span("day", late, ZoneInfo("UTC"))[0].date()
    start, _ = period_span("day", late, ZoneInfo("Asia/Tokyo"))
    assert datetime(2026, 7, 1, 15, tzinfo=UTC) == start


@settings(deadline=None)
@given(
    MOMENTS,
    st.integers(1, 40 * 24 * 3600),
    st.sampled_from(ZONES),
    st.sampled_from(["hour", "day", "month"]),
)
def test_spans_follow_each_other_from_start_to_stop(
    start: datetime, seconds: int, name: str, every: Granularity
) -> None:
    stop = start + timedelta(seconds=seconds)

    found = spans(start, stop, every, ZoneInfo(name))

    assert start == found[0]
    assert stop > found[-1]
    assert all(earlier < later for earlier, later in pairwise(found))


@settings(deadline=None)
@given(MOMENTS, st.sampled_from(ZONES), st.integers(1, 40))
def test_days_begin_when_the_date_changes(start: datetime, name: str, days: int) -> None:
    zone = ZoneInfo(name)

    found = spans(start, start + timedelta(days=days), "day", zone)

    dates = [moment.astimezone(zone).date() for moment in found]
    assert [dates[0] + timedelta(days=n) for n in range(len(dates))] == dates
    assert all((m - MOMENT).astimezone(zone).date() < m.astimezone(zone).date() for m in found[1:])
    assert (start + timedelta(days=days) - MOMENT).astimezone(zone).date() == dates[-1]


@settings(deadline=None)
@given(MOMENTS, st.sampled_from(ZONES))
def test_months_begin_on_the_first(start: datetime, name: str) -> None:
    zone = ZoneInfo(name)

    found = spans(start, start + timedelta(days=400), "month", zone)

    assert 14 <= len(found) <= 15
    for moment in found[1:]:
        assert 1 == moment.astimezone(zone).day != (moment - MOMENT).astimezone(zone).day


@settings(deadline=None)
@given(MOMENTS, st.sampled_from([zone for zone in ZONES if zone != "Australia/Lord_Howe"]))
def test_hours_begin_when_the_clock_on_the_wall_says(start: datetime, name: str) -> None:
    zone = ZoneInfo(name)

    found = spans(start, start + timedelta(days=2), "hour", zone)

    assert {(0, 0, 0)} == {
        (local.minute, local.second, local.microsecond)
        for local in (moment.astimezone(zone) for moment in found[1:])
    }
    assert {HOUR} == {later - earlier for earlier, later in pairwise(found[1:])}


def test_hours_are_whole_again_after_the_clocks_changed_by_half_of_one() -> None:
    zone = ZoneInfo("Australia/Lord_Howe")
    start = midnight(date(2026, 4, 5), zone)

    found = spans(start, start + timedelta(hours=24.5), "hour", zone)

    assert {0, 30} == {moment.astimezone(zone).minute for moment in found}
    assert ["00:00", "01:00", "01:30", "02:00", "03:00"] == [
        f"{moment.astimezone(zone):%H:%M}" for moment in found[:5]
    ]
    assert "23:00" == f"{found[-1].astimezone(zone):%H:%M}"


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 1, 1), 24)]
)
def test_a_day_in_hours_is_complete(day: date, hours: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    start, stop = midnight(day, zone), midnight(day + timedelta(days=1), zone)

    assert [start + n * HOUR for n in range(hours)] == spans(start, stop, "hour", zone)


@pytest.mark.parametrize("every", ["hour", "day", "month"])
def test_no_time_at_all_is_one_span(every: Literal["hour", "day", "month"]) -> None:
    moment = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)

    assert [moment] == spans(moment, moment, every, ZoneInfo("UTC"))
