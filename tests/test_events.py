"""The nouns: ids that sort by time, events that cannot be changed."""

from __future__ import annotations

import dataclasses
import threading
import time
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmw.events import Amendment, Price, Usage, new_id
from rows import an_event


def id_at(monkeypatch: pytest.MonkeyPatch, nanoseconds: int) -> UUID:
    with monkeypatch.context() as patched:
        patched.setattr(time, "time_ns", lambda: nanoseconds)
        return new_id()


@settings(deadline=None)
@given(st.integers(0, 2**48 * 1_000_000 - 1))
def test_an_id_is_a_uuid_of_version_7_that_holds_its_millisecond(nanoseconds: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = id_at(monkeypatch, nanoseconds)

    assert 7 == made.version
    assert RFC_4122 == made.variant
    assert nanoseconds // 1_000_000 == made.int >> 80


def test_ids_of_later_milliseconds_sort_later_as_bytes_and_as_text() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        ids = [id_at(monkeypatch, (2**40 + n) * 1_000_000) for n in range(300)]

    assert ids == sorted(ids)
    assert [made.bytes for made in ids] == sorted(made.bytes for made in ids)
    assert [str(made) for made in ids] == sorted(str(made) for made in ids)


def test_an_id_tells_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = new_id()
    after = time.time_ns() // 1_000_000

    assert before <= made.int >> 80 <= after


def test_ids_made_at_one_moment_in_many_threads_differ() -> None:
    ids: list[UUID] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
        threads = [
            threading.Thread(target=lambda: ids.extend(new_id() for _ in range(5_000)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert 40_000 == len(ids) == len(set(ids))


def test_every_bit_of_an_id_that_may_be_random_is() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        ids = [id_at(monkeypatch, 0).int for _ in range(200)]
    ever, always = 0, -1
    for made in ids:
        ever |= made
        always &= made

    assert 74 == (ever & ~always).bit_count()


@pytest.mark.parametrize(
    "noun",
    [
        an_event(),
        Usage(),
        Price(None, "none"),
        Amendment(event_id=new_id(), reason="a correction"),
    ],
    ids=lambda noun: type(noun).__name__,
)
def test_nouns_cannot_be_changed(noun: object) -> None:
    for field in dataclasses.fields(noun):  # type: ignore[arg-type]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(noun, field.name, None)


def test_usage_without_detail_shares_no_state() -> None:
    with pytest.raises(TypeError):
        Usage().detail["web_searches"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("asked", "answered", "model"),
    [("a", "b", "b"), ("a", None, "a"), (None, "b", "b"), (None, None, None)],
)
def test_the_model_is_the_one_that_answered(
    asked: str | None, answered: str | None, model: str | None
) -> None:
    assert model == an_event(request_model=asked, response_model=answered).model
