"""Rows out of a ledger: CSV, JSON lines, Parquet and FOCUS."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmw.errors import ConfigError, StoreError
from costmw.events import Amendment, Price, Usage, UsageEvent, new_id
from costmw.money import MAX_PICO
from costmw.store.sqlite import SqliteStore
from costmw.transfer import exporting, formats
from costmw.transfer.cells import cell_text, text_cell
from costmw.transfer.columns import NAMES
from costmw.transfer.exporting import FORMATS, export, export_to_file
from costmw.transfer.formats import CsvSink
from costmw.transfer.whole_file import whole_file
from rows import NOON, an_event, opened

HOUR = timedelta(hours=1)
TRIGGERS = ("=", "+", "-", "@", "\t", "\r", "\n")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with opened(tmp_path / "llmcost.db") as store:
        yield store


def exported(store: Any, file_format: str = "csv", **options: Any) -> bytes:
    file = io.BytesIO()
    export(store, FORMATS[file_format](file), **options)
    return file.getvalue()


def csv_rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def json_rows(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.decode().split("\n")[:-1]]


def parquet_rows(data: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return rows


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "costmw.cli", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, **options)


class TestColumns:
    """What a row says of a call."""

    EVENT = an_event(
        3_250_000_000,
        created_at=datetime(2026, 3, 17, 12, 30, 15, 42, tzinfo=UTC),
        request_model="gpt-5-mini",
        response_model="gpt-5-mini-2026-01-01",
        usage=Usage(100, 10, 7, 3, 2, {"web_searches": 1}),
        price=Price(3_250_000_000, "list", "genai-prices 1", {"input_mtok": "0.25"}),
        latency_ms=1500,
        tags={"tenant": "acme", "a": "é"},
        api_key_id="k1",
        request_id=new_id(),
        first_in_request=True,
    )

    def test_those_that_articles_name_come_first(self, store: SqliteStore) -> None:
        names = "id model provider input_tokens output_tokens cost_usd latency_ms tags api_key_id"
        assert exported(store).decode().startswith(",".join([*names.split(), "created_at,"]))

    def test_csv_has_exact_money_json_tags_and_utc(self, store: SqliteStore) -> None:
        store.write([self.EVENT])
        (row,) = csv_rows(exported(store))
        assert {
            "id": str(self.EVENT.id),
            "model": "gpt-5-mini-2026-01-01",
            "provider": "openai",
            "input_tokens": "100",
            "output_tokens": "10",
            "cost_usd": "0.00325",
            "latency_ms": "1500",
            "tags": '{"a":"é","tenant":"acme"}',
            "api_key_id": "k1",
            "created_at": "2026-03-17T12:30:15.000042Z",
            "status": "ok",
            "cost_source": "list",
            "cache_read_input_tokens": "7",
            "usage_detail": '{"web_searches":1}',
            "request_id": str(self.EVENT.request_id),
            "first_in_request": "1",
            "unit_prices_usd": '{"input_mtok":"0.25"}',
        }.items() <= row.items()
        assert list(NAMES) == list(row)

    def test_json_lines_have_objects_and_money_as_text(self, store: SqliteStore) -> None:
        store.write([self.EVENT])
        (row,) = json_rows(exported(store, "jsonl"))
        assert list(NAMES) == list(row)
        assert ("0.00325", 100, True) == (
            row["cost_usd"],
            row["input_tokens"],
            row["first_in_request"],
        )
        assert {"tenant": "acme", "a": "é"} == row["tags"]
        assert "2026-03-17T12:30:15.000042Z" == row["created_at"]

    def test_parquet_has_types(self, store: SqliteStore) -> None:
        store.write([self.EVENT])
        data = exported(store, "parquet")
        schema = pq.read_schema(io.BytesIO(data))
        assert list(NAMES) == schema.names
        assert {
            "cost_usd": "decimal128(38, 12)",
            "created_at": "timestamp[us, tz=UTC]",
            "input_tokens": "int64",
            "tags": "string",
            "first_in_request": "bool",
        } == {
            name: str(schema.field(name).type)
            for name in ("cost_usd", "created_at", "input_tokens", "tags", "first_in_request")
        }
        (row,) = parquet_rows(data)
        assert Decimal("0.003250000000") == row["cost_usd"]
        assert self.EVENT.created_at == row["created_at"]
        assert dict(self.EVENT.tags) == json.loads(row["tags"])

    @pytest.mark.parametrize(
        ("cost", "text"),
        [
            (1, "0.000000000001"),
            (-1, "-0.000000000001"),
            (0, "0.00"),
            (MAX_PICO, "9223372.036854775807"),
            (-MAX_PICO, "-9223372.036854775807"),
        ],
    )
    def test_money_is_exact(self, store: SqliteStore, cost: int, text: str) -> None:
        store.write([an_event(cost)])
        assert text == csv_rows(exported(store))[0]["cost_usd"]
        assert text == json_rows(exported(store, "jsonl"))[0]["cost_usd"]
        assert Decimal(text) == parquet_rows(exported(store, "parquet"))[0]["cost_usd"]

    def test_what_is_not_known_is_not_zero(self, store: SqliteStore) -> None:
        store.write([an_event(None, usage=Usage(None, 0), latency_ms=None)])
        (row,) = csv_rows(exported(store))
        assert ("", "", "0", "", "no price") == (
            row["cost_usd"],
            row["input_tokens"],
            row["output_tokens"],
            row["latency_ms"],
            row["reason"],
        )
        for found in (
            *json_rows(exported(store, "jsonl")),
            *parquet_rows(exported(store, "parquet")),
        ):
            assert (None, None, 0) == (
                found["cost_usd"],
                found["input_tokens"],
                found["output_tokens"],
            )

    def test_amendments_are_applied(self, store: SqliteStore) -> None:
        event = an_event(None)
        store.write([event])
        price = Price(70, "list", "new list")
        store.write([Amendment(event.id, "repriced", price=price, cost_pico_usd=70, unpriced=-1)])
        (row,) = csv_rows(exported(store))
        assert ("0.00000000007", "list", "repriced", "1") == (
            row["cost_usd"],
            row["cost_source"],
            row["reason"],
            row["amendments"],
        )

    def test_json_lines_are_lines_whatever_is_in_them(self, store: SqliteStore) -> None:
        tags = {"a\nb": 'line\r\nend "quoted" \\ \u2028 \N{SNOWMAN} 😀', "": "x"}
        store.write([an_event(tags=tags), an_event(tags={})])
        assert [tags, {}] == [row["tags"] for row in json_rows(exported(store, "jsonl"))]
        assert "😀".encode() in exported(store, "jsonl")


class TestCells:
    """Text that a spreadsheet would run."""

    @pytest.mark.parametrize("trigger", TRIGGERS)
    def test_no_cell_begins_as_a_formula(self, store: SqliteStore, trigger: str) -> None:
        text = f"{trigger}cmd|' /C calc'!A0"
        store.write([an_event(-5, provider=text, response_model=text, reason=text)])
        (row,) = csv_rows(exported(store))
        assert [f"'{text}"] * 3 == [row["model"], row["provider"], row["reason"]]
        # A number is no formula, and a tag's value stands inside of an object.
        assert "-0.000000000005" == row["cost_usd"]
        for other in ("jsonl", "parquet"):
            read = json_rows if other == "jsonl" else parquet_rows
            assert text == read(exported(store, other))[0]["provider"]

    @given(st.text(st.sampled_from("'=+-@\t\r\na ")) | st.text())
    def test_each_text_is_found_again(self, text: str) -> None:
        cell = text_cell(text)
        assert text == cell_text(cell)
        assert cell
        assert not cell.startswith(TRIGGERS)

    def test_no_text_is_not_the_empty_text(self) -> None:
        assert ("", None) == (text_cell(None), cell_text(""))

    def test_harmless_text_stays_as_it_is(self) -> None:
        assert ["o'brien", "'quoted'", "a=b"] == [
            text_cell(text) for text in ("o'brien", "'quoted'", "a=b")
        ]


class TestSelection:
    """Which calls are exported, and in which order."""

    def test_the_oldest_come_first_each_once(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Pages end within a moment that many calls share, and at its end."""
        monkeypatch.setattr(exporting, "PAGE", 3)
        hours = [5, 1, 1, 1, 1, 1, 1, 3, 0, 3, 2, 9, 9]
        events = [an_event(created_at=NOON + hour * HOUR) for hour in hours]
        for event in events:
            store.write([event])
        expected = sorted(events, key=lambda event: event.created_at)
        assert [str(event.id) for event in expected] == [
            row["id"] for row in csv_rows(exported(store))
        ]

    def test_a_span_has_its_start_and_not_its_stop(self, store: SqliteStore) -> None:
        store.write([an_event(n, created_at=NOON + n * HOUR) for n in range(5)])
        rows = csv_rows(exported(store, start=NOON + HOUR, stop=NOON + 3 * HOUR))
        assert ["0.000000000001", "0.000000000002"] == [row["cost_usd"] for row in rows]

    def test_all_tags_that_are_asked_for(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exporting, "PAGE", 2)
        tags = [{"tenant": "acme", "user": str(n % 3)} for n in range(9)] + [{"tenant": "x"}, {}]
        store.write([an_event(n, tags=some) for n, some in enumerate(tags)])
        rows = csv_rows(exported(store, where={"tenant": "acme", "user": "1"}))
        assert [1, 4, 7] == [int(Decimal(row["cost_usd"]).scaleb(12)) for row in rows]
        assert [] == csv_rows(exported(store, where={"tenant": "' OR 1=1"}))

    def test_days_are_those_of_the_store(self, tmp_path: Path) -> None:
        with opened(tmp_path / "berlin.db", time_zone="Europe/Berlin") as store:
            midnight = datetime(2026, 10, 31, 23, 0, tzinfo=UTC)
            store.write(
                [an_event(n, created_at=midnight + timedelta(seconds=n - 1)) for n in range(3)]
            )
            out = tmp_path / "out.csv"
            assert 2 == export_to_file(store, str(out), start="2026-11-01")
            assert 1 == export_to_file(store, str(out), stop="2026-11-01")
            assert 3 == export_to_file(store, str(out), start="2026-10-31T22:59:59Z")

    def test_new_calls_meanwhile_are_no_harm(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exporting, "PAGE", 2)
        store.write([an_event(created_at=NOON + n * HOUR) for n in range(6)])
        rows: list[UsageEvent] = []

        class Meanwhile:
            def write(self, events: Sequence[UsageEvent]) -> None:
                rows.extend(events)
                if len(rows) == 2:
                    store.write([an_event(created_at=NOON - HOUR), an_event(created_at=NOON)])

            def finish(self) -> None:
                pass

        assert 6 == export(store, Meanwhile())
        assert 6 == len({event.id for event in rows})


class TestSnapshot:
    """What exports and imports ask of a store."""

    def test_known_ids(self, store: SqliteStore) -> None:
        events = [an_event() for _ in range(1200)]
        store.write(events[::2])
        with store.snapshot() as snapshot:
            known = snapshot.known_ids([event.id for event in events])
            assert set() == snapshot.known_ids([])
        assert {event.id for event in events[::2]} == known

    def test_pruned_until(self, store: SqliteStore) -> None:
        with store.snapshot() as snapshot:
            assert snapshot.pruned_until() is None
        store.prune(NOON)
        with store.snapshot() as snapshot:
            assert NOON.replace(hour=0) == snapshot.pruned_until()

    def test_a_page_of_a_common_tag_is_found_without_sorting(
        self, store: SqliteStore, tmp_path: Path
    ) -> None:
        statements: list[str] = []
        with store.snapshot() as snapshot:
            snapshot._connection.set_trace_callback(statements.append)
            snapshot.events_between(NOON, NOON + HOUR, scope={"tenant": "acme"}, limit=9)
            (asked,) = [text for text in statements if "ORDER BY" in text]
            snapshot._connection.set_trace_callback(None)
            plan = snapshot._connection.execute(f"EXPLAIN QUERY PLAN {asked}").fetchall()
        assert not [step["detail"] for step in plan if "TEMP B-TREE" in step["detail"]]


class Endless:
    """A store of so many events that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    @contextmanager
    def snapshot(self) -> Iterator[Endless]:
        yield self

    def events_between(
        self, start: datetime, stop: datetime, *, scope: Any, limit: int, after: int | None = None
    ) -> list[tuple[int, UsageEvent]]:
        first = after or 0
        return [
            (n + 1, an_event(n, created_at=NOON + timedelta(minutes=n), tags={"user": str(n)}))
            for n in range(first, min(first + limit, self.count))
        ]


class Discarded(io.RawIOBase):
    """A file that keeps nothing."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


@pytest.mark.parametrize("file_format", FORMATS)
def test_memory_does_not_grow_with_the_rows(
    file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 200)
    monkeypatch.setattr(formats, "ROW_GROUP", 400)

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            assert count == export(Endless(count), FORMATS[file_format](Discarded()))  # type: ignore[arg-type]
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(400)
    few, many = peak(400), peak(4000)
    assert many < 1.5 * few + 200_000


class TestParquetGroups:
    def test_pages_are_gathered_into_row_groups(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exporting, "PAGE", 2)
        monkeypatch.setattr(formats, "ROW_GROUP", 4)
        store.write([an_event(n) for n in range(9)])
        file = pq.ParquetFile(io.BytesIO(exported(store, "parquet")))
        assert [4, 4, 1] == [
            file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)
        ]

    def test_an_empty_ledger_is_a_file_with_columns(self, store: SqliteStore) -> None:
        data = exported(store, "parquet")
        assert ([], list(NAMES)) == (parquet_rows(data), pq.read_schema(io.BytesIO(data)).names)


class TestWholeFile:
    """A file is there whole or not at all."""

    def break_off(self, path: Path, error: type[BaseException]) -> None:
        with whole_file(str(path)) as file:
            file.write(b"half")
            file.flush()
            raise error

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_what_breaks_off_leaves_nothing(
        self, tmp_path: Path, error: type[BaseException]
    ) -> None:
        old = tmp_path / "old.csv"
        old.write_bytes(b"old")
        for name in ("old.csv", "new.csv"):
            with pytest.raises(error):
                self.break_off(tmp_path / name, error)
        assert ["old.csv"] == names_in(tmp_path)
        assert b"old" == old.read_bytes()

    def test_it_replaces_what_was_there_behind_a_link_too(self, tmp_path: Path) -> None:
        (tmp_path / "real.csv").write_bytes(b"old")
        (tmp_path / "link.csv").symlink_to("real.csv")
        with whole_file(str(tmp_path / "link.csv")) as file:
            file.write(b"new")
            assert b"old" == (tmp_path / "real.csv").read_bytes()
        assert (b"new", True) == (
            (tmp_path / "real.csv").read_bytes(),
            (tmp_path / "link.csv").is_symlink(),
        )

    def test_a_device_stays_one(self) -> None:
        with whole_file("/dev/null") as file:
            file.write(b"x")
        assert not Path("/dev/null").is_file()

    @pytest.mark.parametrize("name", ["missing/out.csv", "."])
    def test_what_cannot_be_written_is_said(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigError, match="cannot write"), whole_file(str(tmp_path / name)):
            pass

    def test_a_store_that_fails_midway_leaves_no_file(
        self, store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exporting, "PAGE", 1)
        store.write([an_event(), an_event()])
        out = tmp_path / "out.csv"

        def broken(self: CsvSink, events: Sequence[UsageEvent]) -> None:
            raise StoreError("the disk is gone")

        monkeypatch.setattr(CsvSink, "write", broken)
        with pytest.raises(StoreError, match="the disk is gone"):
            export_to_file(store, str(out))
        assert not [name for name in names_in(tmp_path) if "out.csv" in name]


class TestFocus:
    """The columns of FinOps tools."""

    def rows(self, store: SqliteStore) -> list[dict[str, str]]:
        return csv_rows(exported(store, "focus"))

    def test_calls_that_are_alike_are_summed_by_the_hour(self, store: SqliteStore) -> None:
        usage = Usage(100, 10, 5, 4, 3)
        store.write(
            [
                an_event(7, usage=usage, tags={"tenant": tenant}, created_at=NOON + n * HOUR / 4)
                for n, tenant in enumerate(["a", "a", "b", "a", "a"])
            ]
        )
        rows = self.rows(store)
        assert [
            ("2026-03-17T12:00:00Z", '{"tenant":"a"}', "3", "0.000000000021", "330"),
            ("2026-03-17T12:00:00Z", '{"tenant":"b"}', "1", "0.000000000007", "110"),
            ("2026-03-17T13:00:00Z", '{"tenant":"a"}', "1", "0.000000000007", "110"),
        ] == [
            (
                row["ChargePeriodStart"],
                row["Tags"],
                row["x_Calls"],
                row["ListCost"],
                row["ConsumedQuantity"],
            )
            for row in rows
        ]
        assert {
            "ChargePeriodEnd": "2026-03-17T13:00:00Z",
            "ChargeCategory": "Usage",
            "ServiceCategory": "AI and Machine Learning",
            "ServiceName": "openai",
            "SkuId": "gpt-5-mini",
            "ConsumedUnit": "Tokens",
            "BillingCurrency": "USD",
            "x_InputTokens": "300",
            "x_OutputTokens": "30",
            "x_CacheReadInputTokens": "15",
            "x_CacheWriteInputTokens": "12",
            "x_ReasoningOutputTokens": "9",
        }.items() <= rows[0].items()

    def test_only_what_the_list_says_is_a_list_cost_and_nothing_is_billed(
        self, store: SqliteStore
    ) -> None:
        prices = [
            Price(1, "list"),
            Price(2, "override", "mine"),
            Price(3, "provider"),
            Price(4, "override", "import"),
            Price(None, "none"),
        ]
        store.write([an_event(price=price) for price in prices])
        rows = self.rows(store)
        pico = "0.00000000000{}".format
        assert [
            (pico(1), "", pico(1)),
            ("", pico(2), pico(2)),
            ("", "", pico(3)),
            ("", "", pico(4)),
            ("", "", ""),
        ] == [(row["ListCost"], row["ContractedCost"], row["x_CostUsd"]) for row in rows]
        assert not [name for name in rows[0] if "Billed" in name or "Effective" in name]

    def test_unknown_tokens_are_no_quantity(self, store: SqliteStore) -> None:
        store.write([an_event(usage=Usage(None, 5)), an_event(usage=Usage(5, 5))])
        assert [("", "", "5"), ("10", "5", "5")] == [
            (row["ConsumedQuantity"], row["x_InputTokens"], row["x_OutputTokens"])
            for row in self.rows(store)
        ]


class TestCommand:
    """`costmw export`."""

    def test_to_the_standard_output(self, store: SqliteStore) -> None:
        store.write([an_event(5, tags={"tenant": "acme"}), an_event(6)])
        done = run("export", "--store", store.url, "--where", "tenant=acme")
        assert (0, b"") == (done.returncode, done.stderr)
        assert ["0.000000000005"] == [row["cost_usd"] for row in csv_rows(done.stdout)]

    @pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
    def test_a_file_is_of_the_format_that_its_name_says(
        self, store: SqliteStore, tmp_path: Path, file_format: str
    ) -> None:
        store.write([an_event()])
        out = tmp_path / f"calls.{file_format}"
        done = run("export", "--store", store.url, "--output", str(out))
        assert (0, f"1 call exported to {out}\n".encode()) == (done.returncode, done.stdout)
        assert exported(store, file_format) == out.read_bytes()

    def test_the_store_of_the_environment(self, store: SqliteStore) -> None:
        store.write([an_event()])
        done = run("export", "--format", "jsonl", env={**os.environ, "COSTMW_STORE": store.url})
        assert 1 == len(json_rows(done.stdout))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--format", "xml"], "format is 'xml'; use one of csv, jsonl, parquet, focus"),
            (["--from", "yesterday"], "--from is 'yesterday'; use a day such as 2026-11-01"),
            (["--to", "2026-13-01"], "--to is '2026-13-01'"),
            (["--where", "acme"], "--where is 'acme'; use a tag and its value, as tenant=acme"),
            (["--where", "a=1", "--where", "a=2"], "--where has a twice"),
            (["--output", "missing/out.csv"], "cannot write missing/out.csv"),
        ],
    )
    def test_what_cannot_be_used_is_one_line(
        self, store: SqliteStore, tmp_path: Path, arguments: list[str], message: str
    ) -> None:
        done = run("export", "--store", store.url, *arguments, cwd=tmp_path)
        assert (1, 1) == (done.returncode, done.stderr.count(b"\n"))
        assert message in done.stderr.decode()

    def test_no_store_is_made(self, tmp_path: Path) -> None:
        done = run("export", "--store", "sqlite:///typo.db", "--output", "out.csv", cwd=tmp_path)
        assert 1 == done.returncode
        assert b"there is no store at" in done.stderr
        assert [] == names_in(tmp_path)

    def test_parquet_without_pyarrow_says_what_to_install(
        self, store: SqliteStore, tmp_path: Path
    ) -> None:
        out = tmp_path / "out.parquet"
        script = (
            "import sys; sys.modules['pyarrow'] = None\n"
            f"sys.argv[1:] = ['export', '--store', {store.url!r}, '--output', {str(out)!r}]\n"
            "from costmw.cli import main; main()"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert (1, 1) == (done.returncode, done.stderr.count("\n"))
        assert "pip install 'costmw[parquet]'" in done.stderr
        assert not [name for name in names_in(tmp_path) if "out.parquet" in name]

    def test_a_reader_that_leaves_is_no_traceback(self, store: SqliteStore) -> None:
        store.write([an_event(tags={"user": "x" * 200, "n": str(n)}) for n in range(2000)])
        command = [sys.executable, "-m", "costmw.cli", "export", "--store", store.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(10)
            process.stdout.close()
            assert b"" == process.stderr.read()

    def test_a_terminal_sees_how_far_it_is(self, store: SqliteStore, tmp_path: Path) -> None:
        store.write([an_event() for _ in range(10)])
        seen = on_a_terminal(
            "export", "--store", store.url, "--output", str(tmp_path / "out.csv"), cwd=tmp_path
        )
        assert b"Exporting calls" in seen
        assert b"100%" in seen


def on_a_terminal(*arguments: str, cwd: Path) -> bytes:
    """What a command writes to its standard error when that is a terminal."""
    mine, its = pty.openpty()
    command = [sys.executable, "-m", "costmw.cli", *arguments]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=its, cwd=cwd, env=environ
    ) as process:
        os.close(its)
        seen = b""
        while True:
            try:
                more = os.read(mine, 4096)
            except OSError:  # the other side is closed
                break
            if not more:
                break
            seen += more
    os.close(mine)
    assert process.returncode == 0, seen
    return seen
