"""Every store there is, for tests that all of them have to pass."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pytest

from costmw import Config
from costmw.store.base import Group, Query, Store, Totals
from costmw.store.layers import open_store
from costmw.store.rollups import PAIRED_VALUES, ROLLED_VALUES

KINDS = ("sqlite", "postgres")


@dataclass
class Place:
    """Where one ledger is; makes stores of it, and closes them."""

    kind: str
    url: str
    opened: list[Any] = field(default_factory=list)

    def make(self, **settings: Any) -> Any:
        """A store, not open yet."""
        self.opened.append(plain(open_store(self.url, Config(**settings))))
        return self.opened[-1]

    def open(self, **settings: Any) -> Any:
        """A store that is open."""
        store = self.make(**settings)
        store.open()
        return store

    def close(self) -> None:
        """Close all that were made."""
        while self.opened:
            self.opened.pop().close()


def plain(store: Store) -> Store:
    """The store itself, without what stands before it."""
    return getattr(store, "remote", store)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, place_of: Callable[[str], Place]) -> Place:
    return place_of(request.param)


@pytest.fixture
def place_of(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Callable[[str], Place]]:
    """Makes places for new ledgers of a kind."""
    places: list[Place] = []

    def make(kind: str) -> Place:
        if kind == "postgres":
            url = request.getfixturevalue("postgres").url()
        else:
            url = f"sqlite:///{tmp_path}/{len(places)}.db"
        places.append(Place(kind, url))
        return places[-1]

    yield make
    for place in places:
        place.close()


@pytest.fixture
def store(place: Place) -> Any:
    """An open store of each kind."""
    return place.open()


def narrow(monkeypatch: pytest.MonkeyPatch, *, paired: int, rolled: int) -> None:
    """Let keys have fewer values than ever before they are kept in fewer cells, or in none."""
    texts = {f"> {PAIRED_VALUES}": f"> {paired}", f"> {ROLLED_VALUES}": f"> {rolled}"}
    for name, module in list(sys.modules.items()):
        if not name.startswith("costmw.store."):
            continue
        for constant, value in list(vars(module).items()):
            if constant == "PAIRED_VALUES":
                monkeypatch.setattr(module, constant, paired)
            elif constant == "ROLLED_VALUES":
                monkeypatch.setattr(module, constant, rolled)
            elif isinstance(value, str) and any(text in value for text in texts):
                for text, narrower in texts.items():  # statements
                    value = value.replace(text, narrower)
                monkeypatch.setattr(module, constant, value)


@contextmanager
def changing(store: Any) -> Iterator[Any]:
    """A connection to change what a store keeps, behind its back."""
    if hasattr(store, "_transaction"):
        with store._transaction() as connection:
            yield connection
    else:
        with store._writing() as (connection, _):
            yield connection


@contextmanager
def rows_alone() -> Iterator[None]:
    """Questions are answered from the rows, as if no rollup had the answer."""
    with (
        patch("costmw.store.snapshots.plan", lambda *_: None),
    ):
        yield


def groups_of(store: Store, query: Query) -> dict[Group, Totals]:
    """The answer to a question, which is the same from rows, rollups and both together."""

    def ask() -> dict[Group, Totals]:
        with store.snapshot() as snapshot:
            return dict(snapshot.totals(query).groups)

    with rows_alone():
        of_rows = ask()
    assert of_rows == ask()
    if store.roll_up(3) == 3:
        assert of_rows == ask()
    while store.roll_up(10_000) == 10_000:
        pass
    assert of_rows == ask()
    return of_rows
