"""What Postgres and libpq raise, as errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import DataError, Error, IntegrityError, OperationalError
from psycopg import errors as pg

from costmw.errors import StoreBusy, StoreError, StoreUnreachable

TRY_AGAIN = (pg.DeadlockDetected, pg.SerializationFailure, pg.UniqueViolation)
"""What another transaction of the same moment may cause; the same again may succeed."""

_TOO_LARGE = "54"
_UNREACHABLE = ("08", "57P", "53300")

_ADVICE: tuple[tuple[str, str], ...] = (
    ("28", "it does not let this user in; check user and password"),
    ("3D000", "there is no such database; make it with CREATE DATABASE"),
    ("42501", "this user may not do that; grant it CREATE on the database or own the schema"),
    ("53100", "its disk is full; free some space"),
    ("53", "it has no resources left"),
    ("25006", "it is a read-only standby; name the primary"),
    ("57014", "it took too long to answer"),
    ("57P", "it is shutting down or starting"),
    ("22P05", "its encoding is not UTF8; make a database with ENCODING 'UTF8'"),
)

_REFUSALS: tuple[tuple[str, str], ...] = (
    ("password", "it does not let this user in; check user and password"),
    ("role ", "it does not know this user; check user and password"),
    ("no pg_hba.conf entry", "it lets nobody in from here; see its pg_hba.conf"),
    ("database ", "there is no such database; make it with CREATE DATABASE"),
)
"""Words of a server that refuses a connection, in English."""

_PASSES = ("starting up", "shutting down", "recovery", "too many", "slots", "terminating")


def is_of_the_record(error: Exception) -> bool:
    """Whether a record is refused for what is in it, and not the store unusable."""
    if isinstance(error, Error):
        too_large = (error.sqlstate or "").startswith(_TOO_LARGE)
        return too_large or isinstance(error, DataError | IntegrityError)
    return True


@contextmanager
def translated(shown: str) -> Iterator[None]:
    """Turn errors of the database into `StoreError`; those of one record pass as they are."""
    try:
        yield
    except Error as error:
        if is_of_the_record(error):
            raise
        raise explained(error, shown) from error


def explained(error: Error, shown: str) -> StoreError:
    """The error that says what to do; `shown` is the store's URL without secrets."""
    said = _said(error)
    if isinstance(error, pg.LockNotAvailable | pg.DeadlockDetected | pg.SerializationFailure):
        return StoreBusy(f"{shown} is kept busy by others: {said}")
    if state := error.sqlstate:
        advice = next((text for start, text in _ADVICE if state.startswith(start)), "")
        passes = state.startswith(_UNREACHABLE)
    else:
        # Whoever could not connect is told in words alone; those of the server are fatal.
        advice = next((text for words, text in _REFUSALS if words in said), "")
        passes = isinstance(error, OperationalError) and not advice
        passes = passes and ("FATAL:" not in said or any(words in said for words in _PASSES))
    text = f"cannot use {shown}: {advice} ({said})" if advice else f"cannot use {shown}: {said}"
    return StoreUnreachable(text) if passes else StoreError(text)


def _said(error: Error) -> str:
    if error.diag.message_primary:
        return error.diag.message_primary
    # All of it: with several hosts the first line is but a heading.
    said = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return said[:500] or type(error).__name__
