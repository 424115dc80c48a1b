"""Who is to be forgotten: values of tags, where a ledger has them, and what takes their place."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from costmw.care.opening import Ledger
from costmw.context import tag_value
from costmw.errors import ConfigError
from costmw.store.base import Query
from costmw.store.hashed_tags import hash_of
from costmw.transfer.spans import BEGINNING, END, tag_of


@dataclass(frozen=True, slots=True)
class Person:
    """A tag's value, its hash, and how many calls have either of them."""

    key: str
    value: str
    hashed: str
    calls: int
    hashed_calls: int

    @property
    def tag(self) -> str:
        """As it is typed."""
        return f"{self.key}={self.value}"


def find(ledger: Ledger, pairs: Sequence[str]) -> list[Person]:
    """Look for values of tags, and for their hashes; `pairs` are as `user=alice`.

    Raises:
        ConfigError: when there are none, or a key is one that no call has.
        StoreError: when the ledger cannot be read.
    """
    wanted = dict.fromkeys(tag_of(pair, "a tag to forget") for pair in pairs)
    if not wanted:
        raise ConfigError("say who is to be forgotten, as in: costmw forget user=alice --hash")
    secret = ledger.fingerprint_key()
    people = []
    with ledger.snapshot() as snapshot:
        known = snapshot.tag_keys(scope={})
        for key, typed in wanted:
            value, hashed = tag_value(typed), hash_of(secret, key, typed)
            calls, hashed_calls = (
                sum(
                    sums.calls
                    for sums in snapshot.totals(
                        Query(BEGINNING, END, where={key: name})
                    ).groups.values()
                )
                for name in (value, hashed)
            )
            if key not in known and not calls + hashed_calls:
                raise ConfigError(
                    f"no call has a tag {key!r}; there are {', '.join(known) or 'none yet'}"
                )
            people.append(Person(key, value, hashed, calls, 0 if hashed == value else hashed_calls))
    return people


def hash_away(ledger: Ledger, person: Person) -> int:
    """Put the hash in the place of a value; gives how many sets of tags had it.

    Raises:
        StoreError: when it cannot be done.
    """
    return ledger.forget(person.key, person.value, substitute=person.hashed)


def erase(ledger: Ledger, person: Person) -> int:
    """Put a random name in the place of a value and of its hash; gives the same.

    Raises:
        StoreError: when it cannot be done.
    """
    name = f"(erased {secrets.token_hex(4)})"
    names = dict.fromkeys((person.value, person.hashed))
    return sum(ledger.forget(person.key, known, substitute=name) for known in names)
