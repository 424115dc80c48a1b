"""Tables of calls into a ledger: an export of ours, or anybody's CSV."""

from __future__ import annotations

import csv
import io
import os
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from costmw import Config, Meter, PriceOverride
from costmw.errors import ConfigError
from costmw.events import Amendment, Price, Usage, UsageEvent, new_id
from costmw.money import MAX_PICO
from costmw.price_list import UnitPrices
from costmw.pricing import Pricing
from costmw.store.base import DIMENSIONS, Query, Totals
from costmw.store.layers import open_store
from costmw.store.sqlite import SqliteStore
from costmw.transfer import importing
from costmw.transfer.importing import Imported, import_file
from costmw.transfer.spans import BEGINNING, END
from postgres_server import Server, postgres
from rows import NOON, an_event, opened, stored
from stores import changing, plain
from test_exports import exported, names_in, on_a_terminal, run

__all__ = ["postgres"]

Write = Callable[..., Path]

HEADER = ("id", "model", "provider", "input_tokens", "output_tokens", "cost_usd", "created_at")
ROW = ("1", "gpt-5-mini", "openai", "100", "10", "0.00325", "2026-03-17T12:00:00Z")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with opened(tmp_path / "llmcost.db") as store:
        yield store


@pytest.fixture
def table(tmp_path: Path) -> Write:
    """Writes a CSV file of a line of names and rows."""

    def write(header: Sequence[str], *rows: Sequence[str], delimiter: str = ",") -> Path:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter).writerows([header, *rows])
        path = tmp_path / "calls.csv"
        path.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))
        return path

    return write


def imported(store: Any, path: Path, **options: Any) -> Imported:
    options.setdefault("report", lambda line, problem: pytest.fail(f"{line}: {problem}"))
    return import_file(store, path, Pricing(options.pop("prices", ())), **options)


def changed(**cells: str) -> tuple[list[str], list[str]]:
    """A header and a row like ROW, with other cells, or more of them."""
    row = dict(zip(HEADER, ROW, strict=True)) | cells
    return list(row), list(row.values())


def problems(store: SqliteStore, path: Path, **options: Any) -> list[tuple[int, str]]:
    """What is said of bad rows; nothing may have been imported then."""
    found: list[tuple[int, str]] = []
    with pytest.raises(ConfigError, match="wrong, and nothing is imported"):
        imported(store, path, report=lambda line, text: found.append((line, text)), **options)
    assert [] == stored(store)
    return found


class TestRow:
    """What becomes of the cells of a table that is not ours."""

    def test_all_of_it(self, store: SqliteStore, table: Write) -> None:
        event_id = new_id()
        header, row = changed(
            id=str(event_id),
            latency_ms="1500",
            tags='{"tenant":"acme","n":1.50,"on":true,"no":null,"list":["é"]}',
            api_key_id="k1",
            cached_tokens="7",
            reasoning_tokens="2",
            user_id="ann",
            team="core",
            operation="embeddings",
        )
        assert Imported(new=1) == imported(store, table(header, row))
        (event,) = stored(store)
        assert event == UsageEvent(
            id=event_id,
            created_at=NOON,
            operation="embeddings",
            provider="openai",
            request_model="gpt-5-mini",
            response_model="gpt-5-mini",
            usage=Usage(100, 10, 7, 0, 2, {}),
            price=Price(3_250_000_000, "override", "import"),
            status="ok",
            tags={
                "user": "ann",
                "team": "core",
                "tenant": "acme",
                "n": "1.50",
                "on": "true",
                "list": '["é"]',
            },
            latency_ms=1500,
            api_key_id="k1",
        )

    def test_the_order_of_columns_does_not_matter(self, store: SqliteStore, table: Write) -> None:
        imported(store, table(HEADER, ROW))
        assert Imported(known=1) == imported(store, table(HEADER[::-1], ROW[::-1]))

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ("input_tokens", "prompt_tokens"),
            ("input_tokens", "Prompt Tokens"),
            ("output_tokens", "completion_tokens"),
            ("cost_usd", "cost"),
            ("created_at", "timestamp"),
            ("model", "model_name"),
            ("id", "event_id"),
        ],
    )
    def test_other_names_of_columns(
        self, store: SqliteStore, table: Write, ours: str, theirs: str
    ) -> None:
        imported(store, table(HEADER, ROW))
        header = [theirs if name == ours else name for name in HEADER]
        assert Imported(known=1) == imported(store, table(header, ROW))

    @pytest.mark.parametrize("missing", ["model", "created_at", "input_tokens", "output_tokens"])
    def test_a_column_that_is_needed(self, store: SqliteStore, table: Write, missing: str) -> None:
        header = [name if name != missing else "x" for name in HEADER]
        with pytest.raises(ConfigError, match=f"there is no column {missing}; needed are model"):
            imported(store, table(header, ROW))

    @pytest.mark.parametrize("left_out", ["id", "provider", "cost_usd"])
    def test_a_column_that_is_not_needed(
        self, store: SqliteStore, table: Write, left_out: str
    ) -> None:
        kept = [n for n, name in enumerate(HEADER) if name != left_out]
        path = table([HEADER[n] for n in kept], [ROW[n] for n in kept])
        assert 1 == imported(store, path).new

    def test_columns_that_nothing_is_known_of_are_told(
        self, store: SqliteStore, table: Write
    ) -> None:
        header, row = changed(prompt="x" * 200_000, Status="done", prompt_tokens="5")
        done = imported(store, table(header, row))
        assert ("prompt", "Status", "prompt_tokens") == done.left_out
        assert 100 == stored(store)[0].usage.input_tokens

    @pytest.mark.parametrize(
        "text",
        [
            "2026-03-17T12:00:00Z",
            "2026-03-17T13:00:00+01:00",
            "2026-03-17 12:00:00",
            "2026-03-17 12:00:00.000000+00",
            "2026-03-17 12:00:00 UTC",
            "1773748800",
            "1773748800.0",
            "1773748800000",
            "1773748800000000",
        ],
    )
    def test_times(self, store: SqliteStore, table: Write, text: str) -> None:
        imported(store, table(*changed(created_at=text)))
        assert [NOON] == [event.created_at for event in stored(store)]

    def test_without_a_zone_it_is_utc_wherever_this_runs(
        self, store: SqliteStore, table: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("TZ", "America/New_York")
            time.tzset()
            imported(store, table(*changed(created_at="2026-03-17 12:00:00")))
        time.tzset()
        assert [NOON] == [event.created_at for event in stored(store)]

    def test_a_part_of_a_second(self, store: SqliteStore, table: Write) -> None:
        texts = ("1773748800.123456", "2026-03-17 12:00:00.123456", "1773748800123")
        rows = [changed(id=text, created_at=text)[1] for text in texts]
        imported(store, table(HEADER, *rows))
        assert [123_456, 123_456, 123_000] == [e.created_at.microsecond for e in stored(store)]

    @pytest.mark.parametrize("text", ["", "NULL", "null", "None", "NaN", "\\N", " "])
    @pytest.mark.parametrize("name", ["input_tokens", "latency_ms", "tags", "api_key_id"])
    def test_ways_to_write_nothing(
        self, store: SqliteStore, table: Write, name: str, text: str
    ) -> None:
        imported(store, table(*changed(**{name: text})))
        (event,) = stored(store)
        assert (None if name == "input_tokens" else 100) == event.usage.input_tokens
        assert (None, None, {}) == (event.latency_ms, event.api_key_id, event.tags)

    @pytest.mark.parametrize(
        ("text", "pico"),
        [
            ("0.00325", 3_250_000_000),
            ("$0.00325", 3_250_000_000),
            ("3.25e-03", 3_250_000_000),
            ("0", 0),
            ("-1.5", -1_500_000_000_000),
            ("'-1.5", -1_500_000_000_000),
            ("0.1000000000005", 100_000_000_000),
            ("9223372.036854775807", MAX_PICO),
        ],
    )
    def test_a_cost_is_kept_as_it_is(
        self, store: SqliteStore, table: Write, text: str, pico: int
    ) -> None:
        imported(store, table(*changed(cost_usd=text)))
        (price,) = [event.price for event in stored(store)]
        assert Price(pico, "override", "import") == price

    @pytest.mark.parametrize("text", ["100.0", "1e2", "100"])
    def test_whole_numbers_that_went_through_floats(
        self, store: SqliteStore, table: Write, text: str
    ) -> None:
        imported(store, table(*changed(input_tokens=text, latency_ms="12.5")))
        (event,) = stored(store)
        assert (100, 12) == (event.usage.input_tokens, event.latency_ms)

    def test_providers_by_any_name_that_is_known(self, store: SqliteStore, table: Write) -> None:
        rows = [changed(id=name, provider=name)[1] for name in ("OpenAI", "google", "Acme GPU")]
        imported(store, table(HEADER, *rows))
        assert ["openai", "gcp.gemini", "Acme GPU"] == [e.provider for e in stored(store)]

    def test_an_api_key_itself_is_not_kept(
        self, make_meter: Callable[..., Meter], table: Write
    ) -> None:
        meter = make_meter()
        store = meter.store
        assert isinstance(store, SqliteStore)
        imported(store, table(*changed(api_key_id="sk-proj-secret")))
        (event,) = stored(store)
        assert event.api_key_id
        assert meter._key_ids.id_of("sk-proj-secret") == event.api_key_id

    @pytest.mark.parametrize(
        ("cells", "message"),
        [
            ({"model": ""}, "model is missing"),
            ({"created_at": ""}, "created_at is missing"),
            ({"created_at": "yesterday"}, "created_at is 'yesterday'; use ISO 8601"),
            ({"created_at": "17/03/2026"}, "created_at is '17/03/2026'; use ISO 8601"),
            ({"created_at": "1969-12-31"}, "created_at is '1969-12-31', and no time of a call"),
            ({"created_at": "99999999999999999999"}, "created_at is '99999999999999999999'"),
            ({"input_tokens": "many"}, "input_tokens is 'many', not a whole number"),
            ({"input_tokens": "1.5"}, "input_tokens is '1.5', not a whole number"),
            ({"input_tokens": "-1"}, "input_tokens is -1, not a number of tokens"),
            ({"input_tokens": "1e999999"}, "input_tokens is '1e999999', not a whole number"),
            ({"output_tokens": "inf"}, "output_tokens is 'inf', not a whole number"),
            ({"cost_usd": "free"}, "cost_usd is 'free', not an amount of USD"),
            ({"cost_usd": "1e999999"}, "cost_usd is '1e999999', not an amount of USD"),
            ({"cost_usd": "9223373"}, "cost_usd is '9223373', more than a row can hold"),
            ({"latency_ms": "-5"}, "latency_ms is '-5', not a number of milliseconds"),
            ({"tags": "{'a': 1}"}, "tags is \"{'a': 1}\", not a JSON object"),
            ({"tags": "[1]"}, "tags is '[1]', not a JSON object"),
            ({"tags": '{"a":"\\ud800"}'}, "not a JSON object"),
            ({"tags": "[" * 100_000}, "not a JSON object"),
            (
                {"tags": "{" + ",".join(f'"{n}":1' for n in range(33)) + "}"},
                "tags: 33 tags on one call; 32 are kept",
            ),
            ({"cached_tokens": "101"}, "tokens: 101 cached input tokens exceed the 100"),
            ({"currency": "EUR"}, "currency is 'EUR': only USD can be imported"),
            ({"provider": "", "cost_usd": ""}, "name it with --provider"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, store: SqliteStore, table: Write, cells: dict[str, str], message: str
    ) -> None:
        ((line, problem),) = problems(store, table(*changed(**cells)))
        assert 2 == line
        assert message in problem


class TestPrices:
    """A cost that is missing is worked out, or stays unknown."""

    def test_by_the_price_of_the_day(self, store: SqliteStore, table: Write) -> None:
        """One price in March, another from April on."""
        prices = [
            PriceOverride("acme-1", {"input": "1", "output": "2"}),
            PriceOverride("acme-1", {"input": "3", "output": "4"}, start=date(2026, 4, 1)),
        ]
        days = ("2026-03-31T23:59:59Z", "2026-04-01T00:00:00Z")
        rows = [changed(model="acme-1", cost_usd="", created_at=day)[1] for day in days]
        done = imported(store, table(HEADER, *rows), prices=prices)
        assert (2, 0) == (done.new, done.unpriced)
        assert [(120_000_000, "override"), (340_000_000, "override")] == [
            (event.price.cost_pico_usd, event.price.source) for event in stored(store)
        ]

    def test_by_the_public_list(self, store: SqliteStore, table: Write) -> None:
        imported(store, table(*changed(cost_usd="")))
        (event,) = stored(store)
        assert "list" == event.price.source
        assert event.price.cost_pico_usd
        assert event.price.units

    @pytest.mark.parametrize("model", ["deepseek-chat", "deepseek-v4-flash"])
    def test_prices_that_change_with_the_time_are_those_of_the_list_and_looked_up_once(
        self, store: SqliteStore, table: Write, monkeypatch: pytest.MonkeyPatch, model: str
    ) -> None:
        from genai_prices import calc_price
        from genai_prices.types import Usage as ListUsage

        asked: list[object] = []
        real = UnitPrices._find_rates
        monkeypatch.setattr(
            UnitPrices, "_find_rates", lambda *args: asked.append(args) or real(*args)
        )
        # Hours and minutes of 400 days: prices hold from a day on, or at some hours of the day.
        moments = [NOON - timedelta(days=n, minutes=7 * n) for n in range(400)]
        rows = [
            changed(
                id=f"{n}", model=model, provider="deepseek", cost_usd="", created_at=at.isoformat()
            )
            for n, at in enumerate(moments)
        ]
        assert Imported(new=400) == imported(store, table(rows[0][0], *(row for _, row in rows)))
        usage = ListUsage(input_tokens=100, output_tokens=10)
        expected = {
            at: int(
                calc_price(
                    usage, model, provider_id="deepseek", genai_request_timestamp=at
                ).total_price.scaleb(12)
            )
            for at in moments
        }
        found = {event.created_at: event.price.cost_pico_usd for event in stored(store)}
        assert expected == found
        assert 1 < len(set(expected.values())) <= len(asked) <= 3

    def test_a_model_that_nobody_knows_has_no_cost(self, store: SqliteStore, table: Write) -> None:
        assert Imported(new=1, unpriced=1) == imported(
            store, table(*changed(model="acme-1", cost_usd=""))
        )
        (event,) = stored(store)
        assert (None, "none", "ok") == (
            event.price.cost_pico_usd,
            event.price.source,
            event.status,
        )
        assert event.reason == "openai/acme-1 is not in the price list: add a price override"

    def test_no_usage_and_no_cost(self, store: SqliteStore, table: Write) -> None:
        imported(store, table(*changed(cost_usd="", input_tokens="")))
        (event,) = stored(store)
        assert ("unmetered", "imported without usage", None) == (
            event.status,
            event.reason,
            event.price.cost_pico_usd,
        )

    def test_the_provider_of_rows_that_do_not_say(self, store: SqliteStore, table: Write) -> None:
        rows = [changed(id="1", provider="", cost_usd="")[1], changed(id="2")[1]]
        imported(store, table(HEADER, *rows), provider="azure")
        first, second = stored(store)
        assert ("azure.ai.openai", "openai") == (first.provider, second.provider)
        assert first.price.cost_pico_usd


class TestTwice:
    """A file imported twice adds nothing."""

    @pytest.mark.parametrize(
        "ids", [["1", "2"], [str(UUID(int=1)), str(UUID(int=2))], ["", ""], ["a=b", "'x"]]
    )
    def test_whatever_the_ids_are(self, store: SqliteStore, table: Write, ids: list[str]) -> None:
        path = table(HEADER, *(changed(id=row_id)[1] for row_id in ids))
        assert Imported(new=2) == imported(store, path)
        before = stored(store)
        assert Imported(known=2) == imported(store, path)
        assert before == stored(store)

    def test_a_uuid_is_kept(self, store: SqliteStore, table: Write) -> None:
        event_id = new_id()
        imported(store, table(*changed(id=event_id.hex)))
        assert [event_id] == [event.id for event in stored(store)]

    def test_equal_rows_without_an_id_are_as_many_calls(
        self, store: SqliteStore, table: Write
    ) -> None:
        row = changed(id="")[1]
        other = changed(id="", model="gpt-5")[1]
        assert 4 == imported(store, table(HEADER, row, other, row, row)).new
        assert Imported(new=1, known=4) == imported(store, table(HEADER, row, other, row, row, row))

    def test_one_id_twice_in_a_file_is_one_call(self, store: SqliteStore, table: Write) -> None:
        assert Imported(new=1, known=1) == imported(store, table(HEADER, ROW, ROW))

    def test_two_tables_may_both_count_from_1(self, store: SqliteStore, table: Write) -> None:
        imported(store, table(HEADER, ROW))
        other = changed(created_at="2026-03-17T12:00:01Z")
        assert Imported(new=1) == imported(store, table(*other))

    def test_rows_that_were_recorded_live_are_known(
        self, store: SqliteStore, tmp_path: Path
    ) -> None:
        store.write([an_event(n) for n in range(3)])
        path = tmp_path / "out.csv"
        path.write_bytes(exported(store))
        assert Imported(known=3) == imported(store, path)


class TestAllOrNothing:
    """One row that is wrong stops an import, unless it is to be left out."""

    ROWS = (
        ROW,
        changed(id="2", model="two\nlines")[1],
        changed(id="3", cost_usd="free")[1],
        changed(id="4")[1],
        ("5", "gpt-5-mini"),
    )

    def test_nothing_is_imported(
        self, store: SqliteStore, table: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importing, "BATCH", 1)
        assert [
            (5, "cost_usd is 'free', not an amount of USD"),
            (7, "has 2 cells, and there are 7 columns"),
        ] == problems(store, table(HEADER, *self.ROWS))

    def test_the_others_are_imported_where_that_is_asked(
        self, store: SqliteStore, table: Write
    ) -> None:
        told: list[int] = []
        done = imported(
            store,
            table(HEADER, *self.ROWS),
            skip_bad=True,
            report=lambda line, problem: told.append(line),
        )
        assert (Imported(new=3, bad=2), [5, 7]) == (done, told)
        assert ["gpt-5-mini", "two\nlines", "gpt-5-mini"] == [e.model for e in stored(store)]

    def test_a_dry_run_changes_nothing(self, store: SqliteStore, table: Write) -> None:
        imported(store, table(HEADER, ROW))
        before = stored(store)
        path = table(HEADER, ROW, changed(id="2", model="acme-1", cost_usd="")[1])
        assert Imported(new=1, known=1, unpriced=1) == imported(store, path, dry_run=True)
        assert before == stored(store)

    def test_a_dry_run_makes_no_store(self, tmp_path: Path, table: Write) -> None:
        path = table(*changed(api_key_id="sk-secret"))
        store = SqliteStore(f"sqlite:///{tmp_path}/new.db", Config())
        assert Imported(new=1) == imported(store, path, dry_run=True)
        assert ["calls.csv"] == names_in(tmp_path)

    def test_what_was_pruned_does_not_come_back(self, store: SqliteStore, table: Write) -> None:
        """The rollups have its sums still: it would count twice."""
        store.prune(NOON)
        ((_, problem),) = problems(store, table(*changed(created_at="2026-03-16T23:59:59Z")))
        assert "created_at is before 2026-03-17: rows from before were pruned" in problem
        assert Imported(new=1) == imported(store, table(HEADER, ROW))


class TestFile:
    """Files as programs write them."""

    @pytest.mark.parametrize("delimiter", [";", "\t"])
    def test_other_delimiters(self, store: SqliteStore, table: Write, delimiter: str) -> None:
        imported(store, table(*changed(tags='{"a":"1","b":"2"}'), delimiter=delimiter))
        assert {"a": "1", "b": "2"} == stored(store)[0].tags

    def test_a_byte_order_mark_and_blank_lines(self, store: SqliteStore, table: Write) -> None:
        path = table(HEADER[1:], ROW[1:])  # a column that is needed comes first
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n\n"))
        assert Imported(new=1) == imported(store, path)

    def test_bytes_that_are_no_text(self, store: SqliteStore, table: Write) -> None:
        path = table(HEADER, changed(model="caf\udce9")[1], ROW)
        assert [(2, "is not UTF-8")] == problems(store, path)

    def test_a_quote_that_is_never_closed(self, store: SqliteStore, table: Write) -> None:
        path = table(HEADER, ROW)
        path.write_bytes(path.read_bytes() + b'2,"gpt-5-mini,openai\r\n')
        assert [(3, "is no CSV: unexpected end of data")] == problems(store, path)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "there is no line with the names of columns"),
            (b"\x00\xff\xfe", "there is no column model"),
            (b"model,model,created_at,input_tokens,output_tokens\n", "there are two columns model"),
        ],
    )
    def test_what_is_no_table(
        self, store: SqliteStore, tmp_path: Path, data: bytes, message: str
    ) -> None:
        path = tmp_path / "calls.csv"
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=message):
            imported(store, path)

    def test_a_file_that_is_not_there(self, store: SqliteStore, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot read .*missing\.csv: No such file"):
            imported(store, tmp_path / "missing.csv")

    def test_a_pipe_is_read_once(self, store: SqliteStore, table: Write, tmp_path: Path) -> None:
        data = table(HEADER, ROW).read_bytes()
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(data,))
        writer.start()
        try:
            assert Imported(new=1) == imported(store, pipe)
        finally:
            writer.join()

    def test_the_limit_of_the_csv_module_is_as_before(
        self, store: SqliteStore, table: Write
    ) -> None:
        before = csv.field_size_limit(12_345)
        try:
            imported(store, table(HEADER, ROW))
            assert csv.field_size_limit() == 12_345
        finally:
            csv.field_size_limit(before)

    def test_memory_does_not_grow_with_the_rows(
        self, store: SqliteStore, table: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importing, "BATCH", 100)

        def peak(count: int) -> int:
            rows = [changed(id="", latency_ms=str(n))[1] for n in range(count)]
            path = table(changed(latency_ms="")[0], *rows)
            del rows
            tracemalloc.start()
            try:
                imported(store, path, dry_run=True)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        peak(200)
        few, many = peak(200), peak(4000)
        assert many < 1.5 * few + 100_000


HOSTILE = (
    "",
    "=1+1",
    "'=1",
    "'",
    "-",
    "\tx",
    "a,b;c\n\r\nd\re",
    'q"uo"te',
    "😀\u2028é",
    "NULL",
    " x ",
    "o'brien $.%",
)


def random_events(seed: int, count: int) -> tuple[list[UsageEvent], list[Amendment]]:
    """Calls with whatever a row can hold, and corrections of some."""
    rng = random.Random(seed)

    def text() -> str | None:
        return rng.choice([None, "plain", *HOSTILE])

    def number() -> int | None:
        return rng.choice([None, 0, rng.randrange(10**6), 2**63 - 1])

    events, amendments = [], []
    for _ in range(count):
        cost = rng.choice([None, 0, 1, -1, rng.randrange(10**14), MAX_PICO, -MAX_PICO])
        in_request = rng.random() < 0.5
        event = an_event(
            cost,
            created_at=NOON + timedelta(microseconds=rng.randrange(-(10**13), 10**13)),
            operation=rng.choice(["chat", "embeddings"]),
            provider=text(),
            request_model=text(),
            response_model=text(),
            usage=Usage(
                rng.choice([None, 0, rng.randrange(10**12)]),
                rng.choice([None, 0, rng.randrange(10**12)]),
                rng.randrange(10**9),
                rng.randrange(10**9),
                rng.randrange(10**9),
                rng.choice([{}, {"web_searches": 3, "input_audio_tokens": 0}]),
            ),
            price=Price(
                cost,
                "none" if cost is None else rng.choice(["list", "override", "provider"]),
                text(),
                rng.choice([{}, {"input_mtok": "0.25", "x": "1E-7"}]),
            ),
            status=rng.choice(["ok", "ok", "estimated", "incomplete", "unmetered"]),
            reason=text(),
            tags={
                key: rng.choice(HOSTILE)
                for key in rng.sample(["tenant", "user", *HOSTILE], rng.randrange(4))
            },
            api=text(),
            request_id=new_id() if in_request else None,
            first_in_request=in_request and rng.random() < 0.5,
            latency_ms=number() and rng.randrange(10**6),
            time_to_first_chunk_ms=number(),
            api_key_id=text(),
            response_id=text(),
            trace_id=text(),
            price_context=rng.choice([{}, {"service_tier": "flex"}]),
        )
        events.append(event)
        if cost is None and rng.random() < 0.5:
            exact = event.status == "ok"
            amendments.append(
                Amendment(
                    event.id,
                    rng.choice(["repriced", "=repriced"]),
                    price=Price(70, "list", "newer"),
                    cost_pico_usd=70 if exact else 0,
                    estimated_cost_pico_usd=0 if exact else 70,
                    unpriced=-1,
                    output_tokens=rng.choice([0, 5]),
                )
            )
    return events, amendments


def answers(store: Any) -> dict[tuple[str, ...], dict[Any, Totals]]:
    """Sums of all calls in every kind of group, as they are and by the rows alone."""
    while store.roll_up(1000):
        pass
    with store.snapshot() as snapshot:
        return {
            group: snapshot.totals(Query(BEGINNING, END, group)).groups
            for group in (
                (),
                *((name,) for name in (*DIMENSIONS, "tag:tenant", "tag:user", "tag:")),
            )
        }


def stored_unpriced(store: SqliteStore) -> int:
    return sum(event.price.cost_pico_usd is None for event in stored(store))


class TestRoundTrip:
    """What is exported and imported elsewhere gives the same answers."""

    @pytest.mark.parametrize("seed", range(5))
    def test_random_calls(self, tmp_path: Path, seed: int) -> None:
        events, amendments = random_events(seed, 300)
        with opened(tmp_path / "one.db") as one, opened(tmp_path / "two.db") as two:
            one.write([*events, *amendments])
            path = tmp_path / "calls.csv"
            path.write_bytes(exported(one))
            assert 300 == imported(two, path).new

            assert 0 == two.roll_up(1)
            assert answers(one) == answers(two)
            assert {event.id: event for event in stored(one)} == {
                event.id: event for event in stored(two)
            }
            assert exported(one) == exported(two)
            assert Imported(known=300) == imported(two, path)

    def test_from_sqlite_to_postgres_and_back(self, postgres: Server, tmp_path: Path) -> None:
        events, amendments = random_events(7, 150)
        path = tmp_path / "calls.csv"
        with opened(tmp_path / "one.db") as one:
            one.write([*events, *amendments])
            path.write_bytes(exported(one))
            two = plain(open_store(postgres.url(), Config()))
            try:
                assert Imported(new=150, unpriced=stored_unpriced(one)) == imported(two, path)
                assert Imported(known=150) == imported(two, path)
                with changing(two) as connection:  # as a server does by itself, a little later
                    connection.execute("ANALYZE usage_events, rollups, rollup_kinds, call_kinds")
                    connection.execute("ANALYZE facets, facet_keys, tags, tag_sets")
                assert answers(one) == answers(two)
                assert exported(one) == exported(two)
                assert exported(one, where={"user": "'"}) == exported(two, where={"user": "'"})
            finally:
                two.close()

    def test_a_call_that_was_repriced_leaves_nothing_out(self, tmp_path: Path) -> None:
        """Why it was amended is kept, and is not taken for a flaw of its cost."""
        with opened(tmp_path / "one.db") as one, opened(tmp_path / "two.db") as two:
            event = an_event(None)
            one.write([event, Amendment(event.id, "repriced", cost_pico_usd=7, unpriced=-1)])
            path = tmp_path / "calls.csv"
            path.write_bytes(exported(one))
            imported(two, path)
            (sums,) = answers(two)[()].values()
            assert (0, 0, 7) == (sums.flagged, sums.unpriced, sums.cost_pico_usd)
            assert ["repriced"] == [event.reason for event in stored(two)]

    def test_a_spreadsheet_saves_its_own_way(self, tmp_path: Path, table: Write) -> None:
        """Semicolons, and TRUE for what it takes for true or false."""
        with opened(tmp_path / "one.db") as one, opened(tmp_path / "two.db") as two:
            event = an_event(-5, first_in_request=True, request_id=new_id(), provider="=x")
            one.write([event])
            header, row = csv.reader(io.StringIO(exported(one).decode(), newline=""))
            row[header.index("first_in_request")] = "TRUE"
            imported(two, table(header, row, delimiter=";"))
            assert [event] == stored(two)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("status", "fine"),
            ("cost_source", ""),
            ("request_id", "r1"),
            ("usage_detail", '{"a":"x"}'),
            ("input_tokens", "9223372036854775808"),
            ("tags", "x"),
        ],
    )
    def test_an_export_that_was_changed_by_hand(
        self, store: SqliteStore, tmp_path: Path, table: Write, name: str, text: str
    ) -> None:
        with opened(tmp_path / "one.db") as one:
            one.write([an_event()])
            header, row = csv.reader(io.StringIO(exported(one).decode(), newline=""))
        row[header.index(name)] = text
        ((line, problem),) = problems(store, table(header, row))
        assert (2, name) == (line, problem.split()[0])


class TestCommand:
    """`costmw import`."""

    def test_it_says_what_it_did(self, tmp_path: Path, table: Write) -> None:
        path = table(*changed(cost_usd="", model="acme-1", prompt="secret"))
        url = f"sqlite:///{tmp_path}/llmcost.db"
        done = run("import", str(path), "--store", url, "--dry-run")
        assert (
            "1 call would be imported, 1 of them without a cost\ncolumns left out: prompt\n"
            == done.stdout.decode()
        )
        assert ["calls.csv"] == names_in(tmp_path)
        done = run("import", str(path), "--store", url)
        assert 0 == done.returncode
        assert done.stdout.startswith(b"1 call imported, 1 of them without a cost\n")
        done = run("import", str(path), "--store", url)
        assert done.stdout.startswith(b"0 calls imported, 1 there already\n")
        assert b"" == done.stderr

    def test_each_bad_row_is_a_line(self, tmp_path: Path, table: Write) -> None:
        rows = [changed(id=str(n), model="")[1] for n in range(150)]
        path = table(HEADER, *rows, ROW)
        arguments = ("import", str(path), "--store", f"sqlite:///{tmp_path}/llmcost.db")
        done = run(*arguments)
        lines = done.stderr.decode().splitlines()
        assert (1, f"{path}:2: model is missing") == (done.returncode, lines[0])
        assert (102, ["calls.csv"]) == (len(lines), names_in(tmp_path))
        assert "... and more of them" == lines[-2]
        assert lines[-1].startswith("costmw: 150 rows are wrong, and nothing is imported; mend")

        done = run(*arguments, "--skip-bad")
        assert (0, b"1 call imported, 150 left out\n") == (done.returncode, done.stdout)

    def test_prices_of_the_environment(self, tmp_path: Path, table: Write) -> None:
        prices = tmp_path / "prices.toml"
        prices.write_text('[[price]]\nmodel = "acme-1"\ninput = 1\noutput = 2\n')
        path = table(*changed(cost_usd="", model="acme-1", provider=""))
        url = f"sqlite:///{tmp_path}/llmcost.db"
        environ = {**os.environ, "COSTMW_PRICES": str(prices), "COSTMW_STORE": url}
        assert 0 == run("import", str(path), "--provider", "acme", env=environ).returncode
        with opened(tmp_path / "llmcost.db") as store:
            (event,) = stored(store)
        assert ("acme", Decimal("0.00012")) == (
            event.provider,
            Decimal(event.price.cost_pico_usd or 0).scaleb(-12),
        )

    def test_a_terminal_sees_how_far_it_is(self, tmp_path: Path, table: Write) -> None:
        url = f"sqlite:///{tmp_path}/llmcost.db"
        seen = on_a_terminal("import", str(table(HEADER, ROW)), "--store", url, cwd=tmp_path)
        assert b"Importing calls.csv" in seen
        assert b"100%" in seen
