"""What `costmw prune`, `verify`, `rebuild`, `backup`, `forget` and `migrate` do, and say."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from costmw.care import balances, differences
from costmw.care.forgetting import Person, erase, find, hash_away
from costmw.care.opening import Ledger, named, opened
from costmw.care.pruning import drop, old_rows
from costmw.care.schema import Schema, schema_of
from costmw.config import Config, store_from_environment
from costmw.errors import ConfigError, StoreError
from costmw.store.base import Query
from costmw.store.sqlite import SqliteStore
from costmw.transfer.progress import progress, working
from costmw.transfer.spans import BEGINNING, END


def prune(store: str, *, days: int | None, before: str, dry_run: bool) -> str:
    """Drop old rows; gives what to say of it.

    Raises:
        CostmwError: when an option or the store cannot be used.
    """
    with opened(store) as ledger:
        old = old_rows(ledger, days=days, before=before)
        zone = ledger.time_zone
        since = f"{old.kept_from.astimezone(zone):%Y-%m-%d} ({zone.key})"
        if dry_run:
            return f"{_calls(old.calls)} from before {since} would be dropped"
        with progress("Dropping old rows", lambda: old.calls) as advance:
            dropped = drop(ledger, old, advance)
    return f"{_calls(dropped)} from before {since} dropped; their sums are kept"


def verify(store: str, *, as_json: bool) -> tuple[str, bool]:
    """Compare rollups and balances with the rows; gives what to say of it, and whether they agree.

    Raises:
        CostmwError: when the store cannot be used.
    """
    with opened(store) as ledger, working("Comparing rollups and rows"):
        sums = differences.lines_of(ledger.verify())
        amounts = balances.lines_of(ledger.verify_balances())
        agree = not sums and not amounts
        if as_json:
            objects = [*differences.objects_of(sums), *balances.objects_of(amounts)]
            return json.dumps(objects, ensure_ascii=False, indent=2), agree
        zone = ledger.time_zone
        if agree:
            with ledger.snapshot() as snapshot:
                budgets = len(snapshot.rules().kept)
            told = [f"rollups = ledger: {_calls(_kept(ledger))}"]
            if budgets:
                told.append(f"balances = ledger + holds: {_count(budgets, 'blocking budget')}")
            return "\n".join(told), True
    told = []
    if sums:
        told.append(differences.as_table(sums, zone))
    if amounts:
        shown = list(balances.rows_of(amounts[: differences.SHOWN_AT_MOST], zone))
        told.append(differences.table_of(balances.HEAD, shown, len(amounts)))
    count = len(sums) + len(amounts)
    told.append(
        f"{'1 sum differs' if count == 1 else f'{count} sums differ'}; costmw rebuild makes the "
        "rollups anew from the rows"
    )
    return "\n".join(told), False


def rebuild(store: str) -> str:
    """Make the rollups and balances anew; gives what to say of it.

    Raises:
        CostmwError: when the store cannot be used.
    """
    with opened(store) as ledger, working("Making the rollups anew"):
        count = ledger.rebuild()
        ledger.rebuild_balances()
    return f"rollups are made anew from {_count(count, 'row')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def backup(store: str, target: Path) -> str:
    """Copy the ledger to a file that is there whole or not at all; gives what to say of it.

    Raises:
        CostmwError: when the store or the file cannot be used.
    """
    part = target.with_name(f"{target.name}.part")
    with opened(store) as ledger, working("Copying"):
        if target.exists():
            raise StoreError(f"{target} exists already; name a file that does not")
        if not target.parent.is_dir():
            raise ConfigError(f"there is no directory {target.parent}; make it first")
        part.unlink(missing_ok=True)
        try:
            ledger.backup(part)
            if isinstance(ledger, SqliteStore):
                shutil.copymode(ledger.path, part)
            os.link(part, target)  # and not over what came meanwhile
        except FileExistsError as error:
            raise StoreError(f"{target} exists already; name a file that does not") from error
        except OSError as error:
            raise StoreError(f"cannot write {target}: {error.strerror or error}") from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        key = f"{ledger.path.name}.key" if isinstance(ledger, SqliteStore) else ""
    return f"copied to {target}" + (
        f"; hashes of tags and API keys go on with a copy of {key}, best kept elsewhere"
        if key
        else ""
    )


def forget(
    store: str,
    pairs: Sequence[str],
    *,
    as_hash: bool,
    as_nobody: bool,
    sure: Callable[[str], bool],
) -> str:
    """Put hashes or random names in the place of tags' values; gives what to say of it.

    Args:
        store: the ledger's URL.
        pairs: the tags, as `user=alice`.
        as_hash: by the hash that `Config(hash_tags=...)` would have stored.
        as_nobody: by a random name.
        sure: told what will happen; False ends it.

    Raises:
        CostmwError: when an option or the store cannot be used.
    """
    if as_hash == as_nobody:
        raise ConfigError("say what takes the place of the value: --hash or --erase")
    with opened(store) as ledger:
        people = find(ledger, pairs)
        if not sure(_plan(people, as_hash=as_hash)):
            return "nothing is changed"
        with working("Forgetting"):
            done = [
                (person, (hash_away if as_hash else erase)(ledger, person)) for person in people
            ]
    told = [_done(person, sets, as_hash=as_hash) for person, sets in done]
    still = sorted({person.key for person, _ in done} - set(Config.from_environment().hash_tags))
    if still:
        told.append(
            f"calls to come are recorded with {', '.join(still)} in clear text, unless the app "
            f"has Config(hash_tags=...) or COSTMW_HASH_TAGS={','.join(still)}"
        )
    return "\n".join(told)


def _plan(people: Sequence[Person], *, as_hash: bool) -> str:
    lines = []
    for one in people:
        found = f"{one.tag}: {_calls(one.calls)}"
        if one.hashed_calls:
            found += f", {one.hashed_calls} under its hash"
        lines.append(f"{found} -> {one.hashed if as_hash else '(erased ...)'}")
    return "\n".join(
        [*lines, "This cannot be undone. Backups and exports keep what they have. Go on?"]
    )


def _done(person: Person, sets: int, *, as_hash: bool) -> str:
    if not sets and not person.calls:
        return f"{person.tag}: nothing to forget"
    calls = person.calls if as_hash else person.calls + person.hashed_calls
    return (
        f"{person.tag}: forgotten in {_calls(calls)} ({sets} set{'' if sets == 1 else 's'} of tags)"
    )


def migrate(store: str, *, check: bool) -> tuple[str, bool]:
    """Bring the tables up to date, or only look; gives what to say, and whether they are.

    Raises:
        CostmwError: when the store cannot be used.
    """
    url = store or store_from_environment() or ""
    with named(url) as ledger:
        before = schema_of(ledger, url)
        if not before.missing:
            return f"up to date: {_told(before)}", True
        missing = ", ".join(before.missing)
        if check:
            return f"not up to date: {_told(before)}; costmw migrate adds {missing}", False
        with working("Bringing the tables up to date"):
            ledger.open()
        after = schema_of(ledger, url)
    return f"brought up to date, from {_told(before)} to {_told(after)}", True


def _told(schema: Schema) -> str:
    told = " + ".join(schema.done) or "nothing"
    return f"{told} (and {', '.join(schema.unknown)} of a newer costmw)" if schema.unknown else told


def sure_by_asking(*, yes: bool, confirm: Callable[[str], bool]) -> Callable[[str], bool]:
    """Ask on a terminal, unless `yes`.

    The callable raises ConfigError where nobody can be asked.
    """

    def sure(plan: str) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise ConfigError(f"{plan}\nNobody can be asked here: say --yes")
        return confirm(plan)

    return sure


def _kept(ledger: Ledger) -> int:
    """Calls that have rows."""
    with ledger.snapshot() as snapshot:
        start = snapshot.pruned_until() or BEGINNING
        found = snapshot.totals(Query(start, END))
    return sum(sums.calls for sums in found.groups.values())


def _calls(count: int) -> str:
    return f"{count} call{'' if count == 1 else 's'}"
