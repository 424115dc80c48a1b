"""Which span of time a question is about, and what it is compared with."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from costmw.errors import ConfigError
from costmw.question import Frame, Question, RangeName, frame_of

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 24, 14, 40, tzinfo=UTC)  # a Tuesday, 15:40 in Berlin


def asked(
    name: RangeName = "custom", now: datetime = NOW, zone: ZoneInfo = BERLIN, **more: object
) -> Frame:
    return frame_of(Question(range=name, **more), now, zone)  # type: ignore[arg-type]


def days(frame: Frame) -> tuple[str, str]:
    start, stop = (moment.astimezone(frame.zone) for moment in (frame.start, frame.stop))
    return f"{start:%F %H}", f"{stop:%F %H}"


def before(frame: Frame) -> tuple[str, str]:
    assert frame.previous is not None
    start, stop = (moment.astimezone(frame.zone) for moment in frame.previous)
    return f"{start:%F %H}", f"{stop:%F %H}"


@pytest.mark.parametrize(
    ("name", "expected", "expected_before", "every"),
    [
        ("today", ("2026-11-24", "2026-11-25"), ("2026-11-23 00", "2026-11-23 16"), "hour"),
        ("7d", ("2026-11-18", "2026-11-25"), ("2026-11-11 00", "2026-11-17 16"), "day"),
        ("30d", ("2026-10-26", "2026-11-25"), ("2026-09-26 00", "2026-10-25 16"), "day"),
        ("90d", ("2026-08-27", "2026-11-25"), ("2026-05-29 00", "2026-08-26 16"), "day"),
        ("12m", ("2025-12-01", "2026-11-25"), ("2024-12-01 00", "2025-11-24 16"), "month"),
        ("month", ("2026-11-01", "2026-11-25"), ("2026-10-01 00", "2026-10-24 16"), "day"),
        ("last-month", ("2026-10-01", "2026-11-01"), ("2026-09-01 00", "2026-10-01 00"), "day"),
    ],
)
def test_a_range_is_whole_days_beside_the_same_time_before(
    name: RangeName, expected: tuple[str, str], expected_before: tuple[str, str], every: str
) -> None:
    frame = asked(name)
    assert tuple(f"{day} 00" for day in expected) == days(frame)
    assert expected_before == before(frame)
    assert every == frame.every


def test_days_of_ones_own() -> None:
    over = asked(first=date(2026, 3, 1), stop=date(2026, 4, 1))
    assert ("2026-03-01 00", "2026-04-01 00") == days(over)
    assert ("2026-01-29 00", "2026-03-01 00") == before(over)
    goes_on = asked(first=date(2026, 11, 20), stop=date(2026, 11, 30))
    assert ("2026-11-10 00", "2026-11-14 16") == before(goes_on)
    to_come = asked(first=date(2026, 12, 1), stop=date(2026, 12, 3))
    assert (("2026-11-29 00", "2026-12-01 00"), "hour") == (before(to_come), to_come.every)


def test_a_time_zone_of_ones_own() -> None:
    frame = frame_of(Question(range="today", zone="Asia/Kolkata"), NOW, ZoneInfo("UTC"))
    assert datetime(2026, 11, 23, 18, 30, tzinfo=UTC) == frame.start
    assert "Asia/Kolkata" == frame.zone.key


def test_no_comparison() -> None:
    assert asked("7d", compare="none").previous is None
    assert asked("all").previous is None
    first = asked(first=date(1970, 1, 2), stop=date(1970, 3, 1))
    assert first.previous is None, "there are no days before"


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (datetime(2026, 3, 31, 12, tzinfo=UTC), "2026-03-01 00"),  # February has no 31st
        (datetime(2026, 3, 28, 12, tzinfo=UTC), "2026-02-28 13"),
        (datetime(2026, 3, 1, 0, 10, tzinfo=UTC), "2026-02-01 01"),
    ],
)
def test_a_longer_month_is_compared_with_all_of_a_shorter_one(now: datetime, expected: str) -> None:
    assert ("2026-02-01 00", expected) == before(asked("month", now))


def test_clocks_that_change_move_no_day() -> None:
    frame = asked("7d", datetime(2026, 3, 30, 12, tzinfo=UTC))
    assert ("2026-03-24 00", "2026-03-31 00") == days(frame)
    assert timedelta(days=7, hours=-1) == frame.stop - frame.start
    assert ("2026-03-17 00", "2026-03-23 14") == before(frame), "by the clock on the wall"


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (Question(range="custom"), "needs from and to"),
        (Question(range="custom", first=date(2026, 1, 2)), "needs from and to"),
        (
            Question(range="custom", first=date(2026, 1, 2), stop=date(2026, 1, 2)),
            "must be after",
        ),
        (
            Question(range="custom", first=date(1969, 1, 2), stop=date(2026, 1, 2)),
            "from 1970-01-01",
        ),
        (Question(range="90d", every="hour"), "2160 points .* more than 800"),
        (
            Question(range="custom", first=date(2000, 1, 1), stop=date(2026, 1, 2), every="day"),
            "day or month",
        ),
    ],
)
def test_what_makes_no_sense_is_said(question: Question, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        frame_of(question, NOW, BERLIN)


def test_all_of_time_has_no_points_to_count() -> None:
    frame = asked("all")
    assert (1969, 2999) == (frame.start.year, frame.stop.year)
