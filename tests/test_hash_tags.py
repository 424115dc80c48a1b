"""Tags that are stored as keyed hashes: nobody is named anywhere, and everybody is found."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import events_of
from costmw import Budget, Config, Meter, bind
from costmw.dashboard.auth import Principal
from costmw.dashboard.cursors import Secret
from costmw.dashboard.questions import Questions
from costmw.errors import ConfigError, StoreError
from costmw.events import Submission
from costmw.integrations.starlette import CostMiddleware
from costmw.question import Question
from costmw.store.hashed_tags import HashedTags, TagHasher, hash_of
from costmw.store.layers import open_store
from costmw.store.sqlite import SqliteStore
from costmw.testing import FakeProvider
from postgres_server import postgres
from rows import NOON, an_event, an_outcome, stored
from stores import Place, place, place_of, plain

__all__ = ["place", "place_of", "postgres"]

ALICE = "alice@example.org"
BOB = {"user": "bob"}
HASHED = Config(hash_tags=("user",), ack_timeout=30.0)
CALL: Mapping[str, Any] = {
    "provider": "openai",
    "model": "gpt-5-mini",
    "input_tokens": 1_000_000,
    "output_tokens": 0,
}


@pytest.fixture
def meter(make_meter: Callable[..., Meter]) -> Meter:
    return make_meter(config=HASHED)


def hash_in(meter: Meter, user: str = ALICE) -> str:
    return hash_of(meter.store.fingerprint_key(), "user", user)


class TestHash:
    def test_it_is_a_short_keyed_hash_of_the_key_and_the_value(self) -> None:
        secret = b"s" * 32
        digits = hmac.new(secret, b"user\0alice", hashlib.sha256).hexdigest()[:16]
        assert f"hashed:{digits}" == hash_of(secret, "user", "alice")

    @pytest.mark.parametrize(
        ("secret", "key", "value"),
        [(b"t" * 32, "user", "a"), (b"s" * 32, "team", "a"), (b"s" * 32, "user", "b")],
    )
    def test_another_secret_key_or_value_gives_another(
        self, secret: bytes, key: str, value: str
    ) -> None:
        assert hash_of(b"s" * 32, "user", "a") != hash_of(secret, key, value)

    def test_what_another_thread_forgets_meanwhile_is_told_all_the_same(self) -> None:
        class Forgetful(dict[tuple[str, str], str]):
            def __setitem__(self, key: tuple[str, str], value: str) -> None:
                self.clear()

        hasher = TagHasher(["user"], lambda: b"s" * 32)
        hasher._known = Forgetful()
        assert {"user": hash_of(b"s" * 32, "user", "a")} == hasher.hashed({"user": "a"})

    def test_a_hash_stays_as_it_is(self) -> None:
        found = hash_of(b"s" * 32, "user", "alice")
        assert found == hash_of(b"s" * 32, "user", found)
        assert found + "0" != hash_of(b"s" * 32, "user", found + "0")

    def test_values_that_are_cut_alike_and_differ_have_different_hashes(self, meter: Meter) -> None:
        for last in "ab":
            meter.record(**CALL, tags={"user": "x" * 300 + last})
        one, other = {event.tags["user"] for event in events_of(meter)}
        assert {one, other} == {hash_in(meter, "x" * 300 + last) for last in "ab"}


class TestConfig:
    def test_from_code_and_the_environment(self) -> None:
        assert () == Config().hash_tags
        assert ("user", "email") == Config(hash_tags=("user", "email", "user")).hash_tags
        found = Config.from_environment({"COSTMW_HASH_TAGS": "user, email,"})
        assert ("user", "email") == found.hash_tags

    @pytest.mark.parametrize("keys", ["user", ("",), (1,), None])
    def test_what_are_no_keys_is_refused(self, keys: Any) -> None:
        with pytest.raises(ConfigError, match="hash_tags is"):
            Config(hash_tags=keys)

    def test_a_meter_hashes_in_a_store_of_ones_own_too(self, tmp_path: Path) -> None:
        own = SqliteStore(f"sqlite:///{tmp_path}/own.db", Config())
        assert isinstance(Meter(own, config=HASHED).store, HashedTags)
        assert Meter(own).store is own


class TestWhatIsStored:
    def test_the_file_names_nobody(self, meter: Meter, tmp_path: Path) -> None:
        """Events, outcomes, submissions, amendments, and whatever is derived from them."""
        now = datetime.now(UTC)
        event = replace(meter.priced(**CALL), tags={"user": ALICE, "tenant": "acme"})
        asked = Submission("openai", "r1", now, {"user": ALICE})
        meter.store.write([event, asked, an_outcome(at=now, tags={"user": ALICE})])
        meter.record(**CALL, tags={"user": ALICE})
        with meter.store.snapshot() as snapshot:
            (counted,) = snapshot.outcomes(
                now - timedelta(hours=1), now + timedelta(hours=1), scope={"user": ALICE}
            )
        assert 1 == counted.count
        meter.close()
        kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert ALICE.encode() not in kept
        assert hash_in(meter).encode() in kept
        with sqlite3.connect(tmp_path / "llmcost.db") as connection:
            rows = connection.execute("SELECT tags FROM llm_usage_events").fetchall()
        connection.close()
        assert [
            f'{{"tenant":"acme","user":"{hash_in(meter)}"}}',
            f'{{"user":"{hash_in(meter)}"}}',
        ] == [text for (text,) in rows]

    def test_other_tags_stay_as_they_are(self, meter: Meter) -> None:
        meter.record(**CALL, tags={"tenant": ALICE})
        (event,) = events_of(meter)
        assert {"tenant": ALICE} == event.tags

    def test_a_result_that_comes_later_has_the_hash_of_who_asked(self, meter: Meter) -> None:
        meter.store.write(
            [
                Submission("openai", "r1", NOON, {"user": ALICE}),
                an_event(1, submitted_as="r1", tags={"user": "worker"}),
            ]
        )
        (event,) = events_of(meter)
        assert {"user": hash_in(meter)} == event.tags

    def test_two_meters_of_one_store_agree(self, make_meter: Callable[..., Meter]) -> None:
        for _ in range(2):
            make_meter(config=HASHED).record(**CALL, tags={"user": ALICE})
        (row,) = make_meter(config=HASHED).reports.by("tag:user").rows
        assert 2 == row.sums.calls

    def test_every_store_hashes(self, place: Place) -> None:
        inner = place.open()
        store = HashedTags(inner, ("user",))
        store.write([an_event(1, tags={"user": ALICE}), an_event(2, tags={"user": "bob"})])
        assert 0 == store.roll_up(100) or plain(inner) is inner
        hashed = hash_of(inner.fingerprint_key(), "user", ALICE)
        for view, value in ((inner, hashed), (store, hashed), (store, ALICE)):
            with view.snapshot() as snapshot:
                ((_, event),) = snapshot.events(scope={"user": value}, limit=9)
            assert hashed == event.tags["user"]


class TestWhatIsAsked:
    """Clear text finds what is stored as hashes."""

    @pytest.fixture
    def asked(self, make_meter: Callable[..., Meter]) -> Meter:
        budgets = [
            Budget("each", 1, per="user"),
            Budget("alice", 1, where={"user": ALICE}),
        ]
        meter = make_meter(config=HASHED, budgets=budgets)
        for user, calls in ((ALICE, 2), ("bob", 1)):
            for _ in range(calls):
                meter.record(**CALL, tags={"user": user, "tenant": "acme"})
        meter.flush()
        return meter

    def test_budgets(self, asked: Meter) -> None:
        spent = {
            (use.name, *use.tags.values()): str(use.spent_usd) for use in asked.reports.budgets()
        }
        assert {
            ("each", hash_in(asked)): "0.50",
            ("each", hash_in(asked, "bob")): "0.25",
            ("alice",): "0.50",
        } == spent

    def test_budgets_within_a_scope(self, asked: Meter) -> None:
        assert {"each", "alice"} == {
            use.name for use in asked.reports.budgets(scope={"user": ALICE})
        }

    def test_reports(self, asked: Meter) -> None:
        reports, who = asked.reports, {"user": ALICE}
        assert 2 == reports.spend(scope=who).sums.calls
        assert 2 == reports.trend(where=who).points[-1].sums.calls
        assert ["acme", 2] == [
            value
            for row in reports.by("tag:tenant", where=who).rows
            for value in (row.value, row.sums.calls)
        ]
        assert 2 == len(reports.calls(scope=who))
        (_, call), *_ = reports.calls(scope=who)
        told = reports.call(call.id, scope=who)
        assert told is not None
        assert dict(call).items() <= dict(told).items()
        assert reports.call(call.id, scope={"user": "bob"}) is None
        assert ["tenant", "user"] == reports.overview(scope=who).tag_keys
        assert 0 == reports.spend(scope={"user": "nobody"}).sums.calls

    def test_the_page_of_one_user(self, asked: Meter) -> None:
        questions = Questions(
            asked, Principal(scope={"user": ALICE}), Secret(asked.store.fingerprint_key)
        )
        overview = questions.overview(Question(by="tag:user"))
        assert [(hash_in(asked), 2)] == [
            (row.value, row.sums.calls) for row in overview.breakdown.rows
        ]
        assert {hash_in(asked)} == {call.tags["user"] for call in overview.calls}
        assert ALICE not in overview.model_dump_json()
        assert 2 == len(questions.calls(Question(range="all"), 50, None).calls)

    def test_budgets_that_name_somebody(self, make_meter: Callable[..., Meter]) -> None:
        limits = {ALICE: "100", "bob": "7"}
        own = [Budget("each", "10", per="user", limits=limits), Budget("of bob", "9", where=BOB)]
        meter = make_meter(config=HASHED, budgets=own)
        meter.keep_budget(Budget("of alice", "5", where={"user": ALICE}, action="block"))
        for user in (ALICE, "bob", "cho"):
            meter.record(**CALL, tags={"user": user})

        each = [use for use in meter.reports.budgets() if use.name == "each"]
        assert {hash_in(meter): 100, hash_in(meter, "bob"): 7, hash_in(meter, "cho"): 10} == {
            use.tags["user"]: use.limit_usd for use in each
        }
        alices = meter.reports.budgets(scope={"user": ALICE})
        assert {("each", 100), ("of alice", 5)} == {(use.name, use.limit_usd) for use in alices}
        assert {"each", "of bob"} == {use.name for use in meter.reports.budgets(scope=BOB)}

    def test_exports(self, asked: Meter, tmp_path: Path) -> None:
        out = self.exported(asked, "--where", f"user={ALICE}")
        assert 3 == out.count("\n")
        assert hash_in(asked) in out
        assert ALICE not in self.exported(asked)

    def test_an_export_comes_back_with_the_same_hashes(self, asked: Meter, tmp_path: Path) -> None:
        (tmp_path / "calls.csv").write_text(self.exported(asked))
        url = f"sqlite:///{tmp_path}/copy.db"
        (tmp_path / "copy.db.key").write_bytes((tmp_path / "llmcost.db.key").read_bytes())
        self.command("import", str(tmp_path / "calls.csv"), url=url)
        copy = Meter(url, config=HASHED)
        assert 2 == copy.reports.spend(scope={"user": ALICE}).sums.calls
        copy.close()

    def test_an_import_is_hashed(self, meter: Meter, tmp_path: Path) -> None:
        (tmp_path / "others.csv").write_text(
            "model,provider,created_at,input_tokens,output_tokens,cost_usd,user\n"
            f"gpt-5-mini,openai,2026-11-01T00:00:00Z,1,1,0.5,{ALICE}\n"
        )
        self.command("import", str(tmp_path / "others.csv"), url=meter.store.url)
        (event,) = events_of(meter)
        assert {"user": hash_in(meter)} == event.tags

    def test_a_dry_run_of_an_import_makes_nothing(self, tmp_path: Path) -> None:
        header = "model,provider,created_at,input_tokens,output_tokens,user\n"
        row = f"gpt-5-mini,openai,2026-11-01T00:00:00Z,1,1,{ALICE}\n"
        (tmp_path / "others.csv").write_text(header + row)
        url = f"sqlite:///{tmp_path}/none.db"
        said = self.command("import", str(tmp_path / "others.csv"), "--dry-run", url=url)
        assert said.startswith("1 call would be imported")
        assert ["others.csv"] == [path.name for path in tmp_path.iterdir()]

    def exported(self, meter: Meter, *options: str) -> str:
        meter.flush()
        return self.command("export", *options, url=meter.store.url)

    @staticmethod
    def command(*arguments: str, url: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "costmw.cli", *arguments, "--store", url],
            env={**os.environ, "COSTMW_HASH_TAGS": "user"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout


class TestSecret:
    """It is read once, never where calls are made, and nothing is stored in its absence."""

    def test_nothing_is_read_when_a_meter_is_made(self, tmp_path: Path) -> None:
        Meter(f"sqlite:///{tmp_path}/llmcost.db", config=HASHED)
        assert [] == list(tmp_path.iterdir())

    def test_a_web_app_reads_it_once_whatever_it_does(
        self, make_meter: Callable[..., Meter], provider: FakeProvider, monkeypatch: Any
    ) -> None:
        from fastapi import FastAPI
        from fastapi.testclient import TestClient
        from openai import AsyncOpenAI

        meter = make_meter(config=Config(hash_tags=("user",), hosts={"127.0.0.1": "openai"}))
        read: list[str] = []
        real = SqliteStore.fingerprint_key
        monkeypatch.setattr(
            SqliteStore, "fingerprint_key", lambda store: read.append(store.url) or real(store)
        )
        client = meter.instrument(
            AsyncOpenAI(
                api_key="sk-1", base_url=provider.openai_url, http_client=httpx.AsyncClient()
            )
        )
        app = FastAPI()
        app.add_middleware(CostMiddleware, meter=meter)

        @app.get("/")
        async def ask(user: str) -> None:
            bind(user=user)
            await client.responses.create(model="gpt-5-mini", input="why?")

        with TestClient(app) as browser:
            for user in (ALICE, "bob", ALICE):
                assert 200 == browser.get("/", params={"user": user}).status_code
            assert 2 == len(meter.reports.by("tag:user").rows)
        assert [meter.store.url] == read

    def test_without_it_records_wait_and_none_is_stored_in_clear_text(
        self, make_meter: Callable[..., Meter], monkeypatch: Any, tmp_path: Path
    ) -> None:
        meter = make_meter(config=Config(hash_tags=("user",), ack_timeout=0.05))
        real = SqliteStore.fingerprint_key

        def broken(store: SqliteStore) -> bytes:
            raise StoreError("the key cannot be read")

        with monkeypatch.context() as patched:
            patched.setattr(SqliteStore, "fingerprint_key", broken)
            meter.record(**CALL, tags={"user": ALICE})
            assert 1 == meter.status().waiting
            assert "the key cannot be read" in str(meter.status().last_error)
        assert real is SqliteStore.fingerprint_key
        assert meter.flush(30)
        (event,) = events_of(meter)
        assert re.fullmatch("hashed:[0-9a-f]{16}", event.tags["user"])


def test_the_doctor_looks_behind(meter: Meter) -> None:
    from costmw.doctor import examine

    meter.start()
    found = examine(store=meter.store.url, environ={"COSTMW_HASH_TAGS": "user"})
    assert [] == [f for f in found if f.level == "error"]


def test_a_store_can_be_opened_without_hashing(meter: Meter) -> None:
    meter.record(**CALL, tags={"user": ALICE})
    meter.flush()
    clear = open_store(meter.store.url, Config())
    assert isinstance(clear, SqliteStore)
    (event,) = stored(clear)
    assert {"user": hash_in(meter)} == event.tags
