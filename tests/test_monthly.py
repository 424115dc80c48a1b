"""The report of a month: which days are in it, what it finds in a ledger, and how it is written."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest

from costmw import Budget
from costmw.errors import ConfigError
from costmw.events import Price, Usage, UsageEvent
from costmw.money import PICO
from costmw.monthly import (
    MonthlyReport,
    month_of,
    monthly_report,
    render_html,
    render_markdown,
    style_hash,
)
from costmw.monthly.figures import average, change, cost, count, dollars, percent, signed
from costmw.monthly.markup import element
from costmw.store.base import Totals
from costmw.store.sqlite import SqliteStore
from postgres_server import postgres
from rows import an_event, an_outcome, opened
from stores import place, place_of, store

__all__ = ["place", "place_of", "postgres", "store"]

UTC_ZONE, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 24, 12, 10, tzinfo=UTC)
DAY = timedelta(days=1)
HOSTILE = "<script>alert(1)</script>|`=1+1`\u202etxt\x00 *x* [a](javascript:b)"


def at(month: int, day: int, hour: int = 12) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


def paid(usd: float, moment: datetime, **changes: Any) -> UsageEvent:
    return an_event(round(usd * PICO), created_at=moment, **changes)


def reported(store: Any, events: Sequence[Any], month: str = "2026-10", **options: Any) -> Any:
    store.write(events)
    return monthly_report(store, month, now=NOW, **options)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SqliteStore]:
    with opened(tmp_path / "llmcost.db") as found:
        yield found


class TestMonths:
    def test_one_that_is_over_beside_the_whole_one_before(self) -> None:
        month = month_of("2026-10", NOW, UTC_ZONE)

        assert (at(10, 1, 0), at(11, 1, 0)) == (month.start, month.stop)
        assert (at(9, 1, 0), at(10, 1, 0)) == (month.previous_start, month.previous_stop)
        assert ("October 2026", False) == (month.name, month.goes_on)

    def test_one_that_goes_on_beside_as_much_of_the_one_before(self) -> None:
        month = month_of("2026-11", NOW, UTC_ZONE)

        assert (at(10, 1, 0), at(10, 24, 12)) == (month.previous_start, month.previous_stop)
        assert month.goes_on

    def test_a_short_month_before_is_compared_as_a_whole(self) -> None:
        """On March 31 there is no February 31 to go up to."""
        month = month_of("2026-03", datetime(2026, 3, 31, 9, tzinfo=UTC), UTC_ZONE)

        assert at(3, 1, 0) == month.previous_stop

    def test_the_last_one_unless_it_is_said(self) -> None:
        assert "October 2026" == month_of("", NOW, UTC_ZONE).name

    def test_days_are_those_of_a_time_zone(self) -> None:
        """Clocks in Berlin go back on October 25."""
        month = month_of("2026-10", NOW, BERLIN)

        assert (at(9, 30, 22), at(10, 31, 23)) == (month.start, month.stop)

    @pytest.mark.parametrize("text", ["2026", "2026-13", "October", "0001-01", "2026-1-1", "26-10"])
    def test_what_is_no_month(self, text: str) -> None:
        with pytest.raises(ConfigError, match=f"month is '{text}'; use a year and a month"):
            month_of(text, NOW, UTC_ZONE)

    def test_one_that_has_not_begun(self) -> None:
        with pytest.raises(ConfigError, match="2026-12', which has not begun"):
            month_of("2026-12", NOW, UTC_ZONE)


class TestFindings:
    def test_sums_beside_the_month_before(self, store: Any) -> None:
        found = reported(
            store,
            [
                paid(4, at(9, 30), tags={"feature": "chat"}),
                paid(6, at(10, 1, 0), tags={"feature": "chat"}),
                paid(3, at(10, 31, 23), tags={"feature": "sum"}, provider="anthropic"),
                paid(50, at(11, 1, 0)),
            ],
        )

        assert (9 * PICO, 4 * PICO) == (found.total.cost_pico_usd, found.before.cost_pico_usd)
        assert [("chat", 2 * PICO), ("sum", 3 * PICO)] == [
            (value.name, value.change) for value in found.by["tag:feature"]
        ]
        assert ["openai/gpt-5-mini", "anthropic/gpt-5-mini"] == [
            value.name for value in found.by["model"]
        ]
        assert ["model", "provider", "tag:feature"] == list(found.by)
        assert (31, 30) == (len(found.days), len(found.days_before))
        assert [6 * PICO, 0, 3 * PICO] == [found.days[n][1].cost_pico_usd for n in (0, 1, 30)]

    def test_a_reader_sees_only_their_own(self, store: Any) -> None:
        budgets = [Budget("all", "9", period="month"), Budget("own", "9", per="tenant")]
        found = reported(
            store,
            [
                paid(4, at(10, 3), tags={"tenant": "acme", "user": "ann"}),
                paid(7, at(10, 3), tags={"tenant": "globex", "user": "cho"}),
                an_outcome("error", at=at(10, 3), tags={"tenant": "acme"}),
                an_outcome("error", at=at(10, 3), tags={"tenant": "globex"}),
            ],
            scope={"tenant": "acme"},
            budgets=budgets,
        )

        assert 4 * PICO == found.total.cost_pico_usd
        assert ["own"] == [use.name for use in found.budgets]
        assert [1] == [row.count for row in found.outcomes]
        for text in (render_html(found), render_markdown(found)):
            assert "acme" in text
            assert not re.search("globex|cho|[$]7|[$]11", text)

    def test_outcomes_are_not_told_where_they_are_not_counted(self, sqlite: SqliteStore) -> None:
        found = reported(sqlite, [paid(1, at(10, 3))], scope={"user": "ann"})

        assert found.outcomes is None

    def test_movers_are_the_largest_changes_of_models_and_tags(self, sqlite: SqliteStore) -> None:
        events = [
            *(paid(n, at(9, 5), tags={"team": f"t{n}"}) for n in (1, 2, 5)),
            paid(9, at(10, 5), tags={"team": "t1"}),
            paid(1, at(10, 5), tags={"team": "t2"}),
            paid(1, at(10, 5), tags={"team": "t5"}),
        ]
        risen, fallen = reported(sqlite, events).movers(1)

        assert [("tag:team", "t1", 8 * PICO)] == [
            (mover.by, mover.value.name, mover.value.change) for mover in risen
        ]
        assert [("t5", -4 * PICO)] == [(mover.value.name, mover.value.change) for mover in fallen]

    def test_days_that_stand_out_and_why(self, sqlite: SqliteStore) -> None:
        events = [paid(5, at(9, 20) + n * DAY, tags={"user": "ann"}) for n in range(40)] + [
            paid(20, at(10, 20), tags={"user": "bob"})
        ]
        before = paid(20, at(9, 29), tags={"user": "bob"})
        ((start, anomaly),) = reported(sqlite, [*events, before]).anomalies

        assert at(10, 20, 0) == start
        assert anomaly.cause is not None
        assert ("tag:user", "bob", "more calls") == (
            anomaly.cause.by,
            anomaly.cause.value,
            anomaly.kind,
        )

    def test_a_day_that_goes_on_is_not_judged(self, sqlite: SqliteStore) -> None:
        events = [paid(5, NOW - n * DAY) for n in range(1, 40)] + [paid(90, NOW)]

        assert [] == reported(sqlite, events, "2026-11").anomalies

    def test_a_month_that_goes_on_is_foreseen(self, sqlite: SqliteStore) -> None:
        events = [paid(5, NOW - n * DAY) for n in range(1, 40)]
        found = reported(sqlite, events, "2026-11")
        over = monthly_report(sqlite, "2026-10", now=NOW)

        assert found.forecast is not None
        assert 150 == pytest.approx(float(found.forecast.expected_usd), abs=4)
        assert over.forecast is None
        assert (24, 24 * 5) == (len(found.days), 5 + found.total.cost_pico_usd // PICO)

    @pytest.mark.parametrize(
        ("zone", "now"),
        [
            ("America/New_York", NOW),
            ("America/New_York", at(11, 1, 2)),  # the ledger's October is over, this one is not
            ("Asia/Tokyo", NOW),
        ],
    )
    def test_budgets_are_those_of_the_month_whatever_its_zone(
        self, sqlite: SqliteStore, zone: str, now: datetime
    ) -> None:
        sqlite.write([paid(5, at(10, 31) - n * DAY) for n in range(31)])
        found = monthly_report(
            sqlite, "2026-10", now=now, zone=ZoneInfo(zone), budgets=[Budget("all", "310")]
        )

        assert [(0.5, at(10, 1, 0))] == [(use.used, use.start) for use in found.budgets]
        assert (now != NOW) == (found.forecast is not None)
        if found.forecast is not None:
            assert 155 == float(found.forecast.spent_usd)

    def test_budgets_of_a_month_that_the_ledger_has_not_begun_are_empty(
        self, sqlite: SqliteStore
    ) -> None:
        sqlite.write([paid(5, at(10, 31))])
        found = monthly_report(
            sqlite,
            "2026-11",
            now=at(10, 31, 20),
            zone=ZoneInfo("Asia/Tokyo"),
            budgets=[Budget("all", "310")],
        )

        assert [(0.0, at(11, 1, 0))] == [(use.used, use.start) for use in found.budgets]

    def test_of_a_month_that_is_over_only_its_own_budgets_count(self, sqlite: SqliteStore) -> None:
        budgets = [Budget(period, "10", period=period) for period in ("day", "week", "month")]
        events = [paid(4, at(10, 31)), paid(3, NOW)]

        assert [("month", 0.4)] == [
            (use.name, use.used) for use in reported(sqlite, events, budgets=budgets).budgets
        ]
        now = monthly_report(sqlite, "2026-11", now=NOW, budgets=budgets)
        assert {"day", "week", "month"} == {use.name for use in now.budgets}

    def test_savings_of_features(self, sqlite: SqliteStore) -> None:
        long = Usage(input_tokens=40_000, output_tokens=10)
        events = [
            paid(0.01, at(10, 3), usage=long, tags={"feature": "chat"}) for _ in range(120)
        ] + [
            paid(
                1,
                at(10, 4 + n, 3),
                tags={"feature": "digest"},
                usage=Usage(input_tokens=1000, output_tokens=1000),
            )
            for n in range(5)
        ]
        titles = [saving.title for saving in reported(sqlite, events).savings]

        assert ["Batch prices for feature digest", "Prompt caches that are not used"] == titles

    def test_a_ledger_without_calls(self, sqlite: SqliteStore) -> None:
        found = reported(sqlite, [])

        assert (0, [], []) == (found.total.calls, found.anomalies, found.savings)
        assert "Cost: **$0.00** (no calls in the month before)" in render_markdown(found)
        assert "LLM cost in October 2026" in render_html(found)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> MonthlyReport:
    """A month with something in every section, and a hostile name."""
    with opened(tmp_path_factory.mktemp("full") / "llmcost.db") as store:
        return full_report(store)


def full_report(store: SqliteStore) -> MonthlyReport:
    events = [
        paid(5, at(9, 20) + n * DAY, tags={"feature": "chat", "user": HOSTILE}) for n in range(40)
    ]
    cut_off = paid(20, at(10, 20), tags={"feature": "sum"}, status="incomplete")
    unknown = an_event(None, created_at=at(10, 21), response_model="tuned|1", provider="own")
    later = replace(paid(2, at(10, 22)), price=Price(2 * PICO, "provider"))
    found = reported(
        store,
        [*events, cut_off, unknown, later, an_outcome("refused", at=at(10, 2))],
        budgets=[Budget("<all>", "200", period="month", action="block")],
        source="sqlite:///llmcost.db",
    )
    assert isinstance(found, MonthlyReport)
    return found


SECTIONS = [
    "At a glance",
    "What changed",
    "Models",
    "Who and what for",
    "Tokens",
    "Budgets",
    "Days that stand out",
    "What could cost less",
    "To look after",
    "How sure this is",
]


def body_of(page: str) -> ET.Element:
    """What a page shows, which is well-formed."""
    return ET.fromstring(page[page.index("<main>") : page.index("</html>")])


class TestHtml:
    def test_it_has_every_section(self, full: MonthlyReport) -> None:
        body = body_of(render_html(full))

        assert "LLM cost in October 2026" == body.findtext("header/h1")
        assert SECTIONS == [heading.text for heading in body.iter("h2")]
        assert 31 == len(body.findall(".//figure/svg/rect"))
        assert 1 == len(body.findall(".//figure/svg/rect[@class='marked']"))

    def test_it_loads_and_runs_nothing(self, full: MonthlyReport) -> None:
        """So that a policy may forbid it all, apart from the style with this hash."""
        page = render_html(full)
        (style,) = re.findall("<style>(.*?)</style>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

        assert f"'sha256-{digest}'" == style_hash()
        assert ['<link rel="icon" href="data:,">'] == re.findall("<link.*?>", page)
        assert not re.search(r'<(script|img|iframe)|\sstyle=|\son\w+="|url\(|@import', page)

    def test_names_are_shown_as_text(self, full: MonthlyReport) -> None:
        shown = "<script>alert(1)</script>|`=1+1`\ufffdtxt\ufffd *x* [a](javascript:b)"
        body = body_of(render_html(full))

        assert shown in [name.text for name in body.iter("bdi")]
        assert "<all>" in [name.text for name in body.iter("bdi")]
        assert [] == [*body.iter("script"), *body.iter("a")]

    def test_attributes_are_escaped(self) -> None:
        assert '<p aria-label="&quot;&gt;&lt;b&gt;">a&amp;b</p>' == element(
            "p", "a&b", aria_label='"><b>'
        )

    def test_what_can_be_scrolled_can_be_reached(self, full: MonthlyReport) -> None:
        for region in body_of(render_html(full)).iterfind(".//div[@class='wide']"):
            assert ("0", "region") == (region.get("tabindex"), region.get("role"))
            assert region.get("aria-label") == region.findtext("table/caption")


class TestMarkdown:
    def test_it_has_every_section(self, full: MonthlyReport) -> None:
        text = render_markdown(full)

        assert text.startswith("# LLM cost in October 2026\n")
        assert SECTIONS == re.findall("^## (.*)$", text, re.MULTILINE)
        assert "| 20 Oct | ≈ $25.00 | stands out |" in text

    def test_names_are_shown_as_text(self, full: MonthlyReport) -> None:
        text = render_markdown(full)

        assert r"\<script\>alert(1)\</script\>\|\`=1+1\`" in text
        assert r" \*x\* \[a\](javascript:b)" in text
        assert not re.search("[\x00-\x08\u202e]|<script>|(?<!\\\\)`", text)

    def test_a_row_has_as_many_cells_as_its_head(self, full: MonthlyReport) -> None:
        tables = re.findall(r"(?:^\|.*\n)+", render_markdown(full), re.MULTILINE)

        assert len(tables) > 8
        for table in tables:
            assert 1 == len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()})

    def test_what_it_says_of_the_month(self, full: MonthlyReport) -> None:
        text = render_markdown(full)

        for line in (
            "- Cost: **≈ $167.00** (+203.6% from $55.00 in the month before)",
            "- **1 call without a cost**  \n  own/tuned\\|1 (1).",
            "- **1 call that did not end**  \n  openai/gpt-5-mini (1).",
            "- **Calls that a budget refused: 1**",
            "| \\<all\\> | everything | 83.5% | $167.00 | $200.00 | month, blocks |",
            "| the provider's own figure | 1 | $2.00 | 1.2% |",
            "| own/tuned\\|1 | 0.0% | unknown | $0.00 | - | 1 | - | - |",
            "88.0% of the cost is exact; $20.00 is estimated",
            "from sqlite:///llmcost.db, 32 calls, by costmw",
        ):
            assert line in text


@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        ("$1,234.57", dollars(1_234_567 * 10**9)),
        ("$0.00412", dollars(4_123_000_000)),
        ("$0.00", dollars(0)),
        ("-$2.50", dollars(-25 * 10**11)),
        ("+$0.500", signed(5 * 10**11)),
        ("$0.00000402", dollars(4_020_000)),
        ("$0.333", average(PICO, 3)),
        ("-", average(PICO, 0)),
        ("12.5%", percent(0.125)),
        ("<0.1%", percent(0.0004)),
        ("0.0%", percent(0.0)),
        ("+50.0%", change(3, 2)),
        ("12x", change(24, 2)),
        ("new", change(3, 0)),
        ("-", change(0, 0)),
        ("1 call", count(1, "call")),
        ("2,000 calls", count(2000, "call")),
        ("unknown", cost(Totals(calls=2, unpriced=2))),
        ("$2.00", cost(Totals(calls=2, unpriced=1, cost_pico_usd=2 * PICO))),
        ("≈ $1.00", cost(Totals(calls=2, estimated_cost_pico_usd=PICO))),
        (
            "$100.90",
            cost(Totals(cost_pico_usd=100 * PICO, estimated_cost_pico_usd=9 * PICO // 10)),
        ),
    ],
)
def test_figures(expected: str, shown: str) -> None:
    assert expected == shown
