"""The page in a real browser: every interaction, on every host, safe, accessible, live."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
import uvicorn
import werkzeug.serving
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from flask import Flask

from chromium import INSTALL, find
from costmw import Budget, Config, Meter
from costmw.context import Scope, enter_scope
from costmw.dashboard import Principal, assets, token
from costmw.events import Outcome
from costmw.integrations.flask import dashboard_blueprint
from costmw.integrations.starlette import dashboard_app

playwright = pytest.importorskip("playwright.sync_api")

FLAGS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)
SECRET = "0123456789abcdef"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202e\u05e9\u05dc\u05d5\u05dd",
    "🦜🔥 emoji",
    "x" * 256,
    "{{constructor.constructor('alert(1)')()}}",
    "javascript:alert(1)",
    "=HYPERLINK(1)",
    "nul\0nul",
)
OPEN = Principal(can_edit=True)
MODULES = Path(assets.__file__).parent / "static"
DJANGO = Path(__file__).parent / "serving" / "django_page.py"


def let_in(_: object) -> Principal:
    return OPEN


# What is shown.


def fill(meter: Meter) -> None:
    """Forty days of calls of two tenants, a day that cost too much, calls with hostile values."""
    now = datetime.now(UTC)
    rows: list[Any] = []
    for n in range(160):
        web = enter_scope(Scope()) if n % 3 else None
        event = meter.priced(
            provider="openai",
            model=("gpt-5-mini", "gpt-5", "gpt-4.1-nano")[n % 3],
            input_tokens=1000 + 37 * n,
            output_tokens=200 + 11 * n,
            cache_read_input_tokens=300,
            reasoning_output_tokens=50,
            created_at=now - timedelta(hours=6 * (160 - n)),
            latency_ms=400 + n,
            tags={
                "tenant": ("acme", "globex")[n % 2],
                "feature": ("chat", "summary")[n % 2],
                "team": "core",
                "user": f"u{n % 5}",
                "route": "/chat/{id}",
            },
        )
        enter_scope(web)
        if n % 10 == 9:
            event = replace(event, status="estimated", reason="the client closed the stream")
        first = event.request_id is not None
        rows.append(replace(event, time_to_first_chunk_ms=100, first_in_request=first))
    rows += [
        meter.priced(
            provider="openai",
            model="gpt-5",
            input_tokens=90_000,
            output_tokens=900,
            created_at=now - timedelta(days=3, minutes=n),
            tags={"tenant": "globex", "feature": "agents", "team": "core"},
        )
        for n in range(20)
    ]
    rows += [Outcome("error", now, "openai", "gpt-5", {"tenant": "acme"})] * 3
    rows += [Outcome("retry", now, "openai", "gpt-5", {"tenant": "acme"})]
    meter.store.write(rows)
    web = enter_scope(Scope())
    for value in HOSTILE:
        meter.record(
            provider="openai",
            model=value,
            input_tokens=1,
            output_tokens=1,
            tags={"feature": value, "user": value, value[:64]: value},
        )
    enter_scope(web)


# Where it is served.


@contextmanager
def serving_asgi(app: Any) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()


@contextmanager
def serving_wsgi(app: Any) -> Iterator[str]:
    server = werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def behind_prefixes(app: Any) -> Any:
    """The app as it is under `/cut`, whose prefix a proxy takes off, and under `/told`, where
    the server knows of it (`uvicorn --root-path /told`)."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path.startswith("/cut/"):
            scope = {**scope, "path": path.removeprefix("/cut")}
        elif path.startswith("/told/"):
            scope = {**scope, "root_path": "/told"}
        await app(scope, receive, send)

    return serve


def mounted(meter: Meter, auth: Any = let_in) -> FastAPI:
    app = FastAPI()
    app.mount("/_llmcost", dashboard_app(meter, auth))
    return app


@contextmanager
def serving_django(store: str) -> Iterator[str]:
    environment = {**os.environ, "STORE": store}
    # A process of its own: Django has one set of settings in each.
    with subprocess.Popen(
        [sys.executable, str(DJANGO)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture(scope="module")
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def a_meter(folder: Path, **options: Any) -> Meter:
    options.setdefault("config", Config(ack_timeout=30))
    return Meter(f"sqlite:///{folder}/llmcost.db", **options)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, cleanup: ExitStack) -> Meter:
    meter = a_meter(
        tmp_path_factory.mktemp("full"),
        budgets=[
            Budget("all", "100"),
            Budget("each tenant", "0.20", per="tenant", period="total"),
        ],
    )
    cleanup.callback(meter.close)
    meter.start()
    fill(meter)
    return meter


@pytest.fixture(scope="module")
def sites(full: Meter, cleanup: ExitStack) -> dict[str, str]:
    """Addresses of the page, over the same store."""
    asgi = cleanup.enter_context(serving_asgi(behind_prefixes(mounted(full))))
    host = Flask("host")
    host.register_blueprint(dashboard_blueprint(full, let_in), url_prefix="/pre/_llmcost")
    flask = cleanup.enter_context(serving_wsgi(host))
    return {
        "fastapi": f"{asgi}/_llmcost/",
        "fastapi, prefix cut": f"{asgi}/cut/_llmcost/",
        "fastapi, root path": f"{asgi}/told/_llmcost/",
        "flask": f"{flask}/pre/_llmcost/",
    }


@pytest.fixture(scope="module")
def django(full: Meter, cleanup: ExitStack) -> str:
    return cleanup.enter_context(serving_django(str(full.store.url))) + "/_llmcost/"


# Who looks.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = find()
    if path is None:
        reason = f"no Chromium: {INSTALL}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page, and all that went wrong or over the wire."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    statuses: list[tuple[str, int]] = field(default_factory=list)

    def open(self, address: str, wait_for: str = "body:not(.loading)") -> Visit:
        self.page.goto(address)
        self.page.locator(wait_for).wait_for(state="visible")
        return self

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.locator("body:not(.loading) #views:not([aria-busy])").wait_for(state="attached")

    def click(self, selector: str) -> None:
        self.page.locator(selector).first.click()
        self.settle()

    def choose(self, selector: str, value: str) -> None:
        self.page.select_option(selector, value)
        self.settle()

    def query(self) -> dict[str, list[str]]:
        """The parameters in the address."""
        return parse_qs(urlsplit(self.page.url).query, keep_blank_values=True)

    def violations(self) -> list[str]:
        found: list[str] = self.page.evaluate("window.violations")
        return found

    def answers(self, part: str) -> list[int]:
        return [status for url, status in self.statuses if part in url]

    def text(self, selector: str) -> str:
        content: str = self.page.locator(selector).text_content()
        return content

    def cells(self, table: str, column: int) -> list[str]:
        found: list[str] = self.page.eval_on_selector_all(
            f"{table} tbody tr > :nth-child({column})", "all => all.map((it) => it.textContent)"
        )
        return found


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    contexts = []

    def new(**options: Any) -> Visit:
        options.setdefault("viewport", {"width": 1280, "height": 900})
        context = browser.new_context(**options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        context.add_init_script(
            "window.violations = [];"
            "addEventListener('securitypolicyviolation', (event) => "
            "violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));"
        )
        visit = Visit(context.new_page())
        page = visit.page
        page.on(
            "console",
            lambda message: (
                visit.complaints.append(message.text)
                if message.type in ("error", "warning")
                else None
            ),
        )
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        page.on("dialog", lambda dialog: visit.complaints.append(f"dialog: {dialog.message}"))
        page.on("response", lambda it: visit.statuses.append((it.url, it.status)))
        return visit

    yield new
    for context in contexts:
        context.close()


IS_DRAWN = """canvas => {
    const pen = new OffscreenCanvas(40, 10).getContext('2d', { willReadFrequently: true });
    pen.drawImage(canvas, 0, 0, 40, 10);
    return pen.getImageData(0, 0, 40, 10).data.some((part) => part !== 0);
}"""


def drawn(page: Any) -> None:
    """Wait until the chart is there, which comes after the numbers."""
    page.wait_for_function(f"() => ({IS_DRAWN})(document.getElementById('trend-chart'))")


# The walk: every interaction that there is.

REFUSED = "Failed to load resource: the server responded with a status of 400 (Bad Request)"
"""What the browser says of the budget that cannot be."""


def look_at_the_first_screen(seen: Visit) -> None:
    told = seen.page.request.get(urljoin(seen.page.url, "api/v1/overview")).json()
    sums = told["summary"]["sums"]
    figures = seen.page.locator("#kpis .figure")
    assert f"{sums['calls']:,}" == figures.nth(5).get_attribute("title")
    for part in ("Spend, last 30 days", "This month", "Budget used most", "Cost per web request"):
        assert part in seen.text("#kpis")
    assert seen.page.locator("#kpis .sparkline").count() == 4
    assert seen.page.locator("#kpis .delta").count() >= 4
    assert seen.text("#trend-title") == "Spend by feature"
    named = [row["value"] for row in told["breakdown"]["rows"]]
    assert seen.cells("#breakdown-table", 1)[:3] == [f"Only {value}" for value in named[:3]]
    assert seen.page.locator("#budgets [role=meter]").count() >= 3
    assert "used up" in seen.text("#budgets")
    assert "usual" in seen.text("#anomalies")
    assert len(seen.cells("#tokens-table", 1)) == 5
    assert seen.cells("#speed-table", 1) == ["Whole call", "First chunk"]
    assert seen.page.locator("#outcome-shares strong").all_text_contents() == ["3", "1", "0", "0"]
    assert "Without user" in seen.text("#untagged")
    assert len(seen.cells("#calls-table", 1)) == 20
    assert seen.text("#time-zone") == "Days and times in UTC."
    assert "Updated" in seen.text("#freshness")
    seen.page.locator("#warning").click()
    assert "have no price" in seen.text("#notices")
    seen.page.keyboard.press("Escape")


def change_what_is_drawn(seen: Visit) -> None:
    for metric, title in (
        ("calls", "Calls by feature"),
        ("tokens", "Tokens by feature"),
        ("cost_per_request", "Cost per web request by feature"),
        ("cost_per_call", "Cost per call by feature"),
    ):
        seen.click(f"#metric [value={metric}]")
        assert seen.text("#trend-title") == title
        assert seen.query()["metric"] == [metric]
    assert seen.page.locator("#chart-kind [value=stack]").is_disabled()
    seen.click("#metric [value=cost]")
    for kind in ("line", "cumulative", "stack"):
        seen.click(f"#chart-kind [value={kind}]")
        assert seen.page.locator("#chart-kind [aria-pressed=true]").get_attribute("value") == kind
    assert seen.page.url.partition("?")[2] == ""
    seen.click("#trend-details summary")
    assert len(seen.cells("#trend-table", 1)) == 30
    assert all(text.startswith("$") for text in seen.cells("#trend-table", 2))
    seen.click("#trend-details summary")


def group_and_sort(seen: Visit) -> None:
    seen.choose("#by", "tag:tenant")
    assert {"Only acme", "Only globex"} <= set(seen.cells("#breakdown-table", 1))
    seen.click("#tabs [value=model]")
    assert seen.text("#breakdown-title") == "By model"
    for sort, rising in (("calls", "descending"), ("-calls", "ascending")):
        seen.click("[data-key='sort calls']")
        assert seen.query()["sort"] == [sort]
        named = seen.cells("#breakdown-table", 5)[:-1]  # the last are the others
        counts = [int(text.replace(",", "")) for text in named]
        assert counts == sorted(counts, reverse=rising == "descending")
        assert seen.page.locator("th[aria-sort]").get_attribute("aria-sort") == rising
    seen.click("#tabs [value=none]")
    assert seen.page.locator("#breakdown-body").is_hidden()
    assert seen.text("#trend-title") == "Spend"
    seen.page.go_back()
    seen.page.locator("#breakdown-title", has_text="By model").wait_for()
    seen.click("#breakdown-more")
    assert seen.query()["top"] == ["25"]
    seen.open(seen.page.url.partition("?")[0])


def filter_calls(seen: Visit) -> None:
    page = seen.page
    page.locator("#filter-add").click()
    page.select_option("#filter-form [name=key]", "tag:tenant")
    page.locator("#filter-values label", has_text="acme").click()
    seen.click("#filter-form [type=submit]")
    assert seen.query()["filter"] == ["tag:tenant:is:acme"]
    assert "tenant is acme" in seen.text("#filters .chip")
    seen.choose("#by", "tag:tenant")
    assert seen.cells("#breakdown-table", 1) == ["Only acme"]

    page.locator("#filters .chip button").first.click()
    page.locator("#filter-values label", has_text="globex").click()
    seen.click("#filter-form [type=submit]")
    assert seen.query()["filter"] == ["tag:tenant:is:acme", "tag:tenant:is:globex"]
    assert set(seen.cells("#breakdown-table", 1)) == {"Only acme", "Only globex"}

    for operator, text, wanted in (
        ("not", "gpt-5", "model:not:gpt-5"),
        ("contains", "nano", "model:contains:nano"),
    ):
        page.locator("#filter-add").click()
        page.select_option("#filter-form [name=key]", "model")
        page.select_option("#filter-form [name=op]", operator)
        page.fill("#filter-form [name=text]", text)
        seen.click("#filter-form [type=submit]")
        assert seen.query()["filter"][-1] == wanted
    assert set(seen.cells("#calls-table", 2)) == {"gpt-4.1-nano"}
    page.reload()
    seen.settle()
    assert page.locator("#filters .chip").count() == 3
    seen.click("#filter-clear")
    for operator in ("set", "unset"):
        page.locator("#filter-add").click()
        page.select_option("#filter-form [name=key]", "tag:user")
        page.select_option("#filter-form [name=op]", operator)
        seen.click("#filter-form [type=submit]")
        assert seen.query()["filter"] == [f"tag:user:{operator}"]
        assert ("—" in seen.cells("#calls-table", 5)) == (operator == "unset")
        seen.click("#filters .cross")
    assert page.evaluate("document.activeElement.id") == "filter-add"

    page.locator("#filter-add").click()
    page.locator("#filter-form [type=submit]").click()
    assert seen.text("#filter-problem") == "Choose a value."
    page.keyboard.press("Escape")
    seen.open(page.url.partition("?")[0] + "?filter=model:is:no-such-model")
    assert page.locator("#none").is_visible()
    seen.click("#none-filters")
    assert page.locator("#none").is_hidden()
    seen.open(page.url.partition("?")[0])


def change_the_time(seen: Visit) -> None:
    page = seen.page
    for name in ("today", "7d", "90d", "12m", "month", "last-month"):
        seen.choose("#range", name)
        assert seen.query()["range"] == [name]
    page.select_option("#range", "custom")
    today = datetime.now(UTC).date()
    page.fill("#dates-form [name=from]", str(today))
    page.fill("#dates-form [name=to]", str(today - timedelta(days=3)))
    page.locator("#dates-form [type=submit]").click()
    assert "must not be before" in seen.text("#dates-problem")
    page.fill("#dates-form [name=from]", str(today - timedelta(days=6)))
    page.fill("#dates-form [name=to]", str(today))
    seen.click("#dates-form [type=submit]")
    assert seen.query()["from"] == [str(today - timedelta(days=6))]
    assert seen.query()["to"] == [str(today + timedelta(days=1))], "the day after the last one"
    assert str(today.year) in seen.text("#dates-open")
    assert page.locator("#kpis .delta").count() > 0
    seen.choose("#compare", "none")
    assert "vs $" not in seen.page.locator("#kpis .card").first.text_content()
    assert "Change" not in seen.text("#breakdown-table thead")
    seen.choose("#every", "hour")
    assert page.locator("#trend-plot").get_attribute("aria-valuemax") >= str(24 * 6)
    seen.choose("#zone", "Asia/Tokyo")
    assert seen.text("#time-zone") == "Days and times in Asia/Tokyo."
    sent = page.url
    page.go_back()
    page.locator("#time-zone", has_text="UTC").wait_for()
    page.go_forward()
    page.locator("#time-zone", has_text="Tokyo").wait_for()
    assert page.url == sent
    seen.open(page.url.partition("?")[0])


def go_into_the_chart(seen: Visit) -> None:
    page = seen.page
    drawn(page)
    plot = page.locator("#trend-plot")
    box = plot.bounding_box()
    middle = {"x": box["width"] * 0.5, "y": box["height"] / 2}
    plot.hover(position=middle)
    shares = page.locator("#trend-tip .share").all_text_contents()
    assert page.locator("#trend-tip").is_visible()
    assert shares[0].endswith("%")
    amounts = [Decimal(text[1:]) for text in seen.cells("#trend-tip", 2)]
    assert amounts == sorted(amounts, reverse=True)

    plot.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    told = plot.get_attribute("aria-valuetext")
    assert "calls" in told
    assert "$" in told
    assert plot.get_attribute("aria-valuenow") == "1"
    page.keyboard.press("Enter")
    seen.settle()
    assert seen.query()["range"] == ["custom"]
    assert len(seen.query()["from"]) == 1
    page.go_back()
    page.locator("#dates-open").wait_for(state="hidden")
    drawn(page)
    plot.click(position=middle)
    page.locator("#trend-plot[aria-valuemax='23']").wait_for()
    assert seen.query()["range"] == ["custom"], "a bar leads to its day"
    plot.click(position=middle)
    page.locator("#calls-table button:focus").wait_for()
    seen.open(page.url.partition("?")[0])

    seen.click("#trend-legend button")
    assert seen.query()["filter"] == ["tag:feature:is:agents"]
    seen.click("#filters .cross")
    seen.click("#breakdown-table .value")
    assert seen.query()["filter"] == ["tag:feature:is:agents"]
    seen.click("#filters .cross")
    seen.click("#anomalies button")
    assert seen.query()["range"] == ["custom"]
    assert seen.query()["filter"][0].endswith(":is:agents")
    seen.open(page.url.partition("?")[0])
    seen.click("#untagged button[data-key='untagged user']")
    assert seen.query()["filter"] == ["tag:user:unset"]
    seen.open(page.url.partition("?")[0])


def open_a_call(seen: Visit) -> None:
    page = seen.page
    button = page.locator("#calls-table tr", has_text="gpt-5-mini").first.locator("button")
    dialog = page.locator("#detail")
    button.focus()
    page.keyboard.press("Enter")
    dialog.locator(".sum").wait_for()
    costs = [Decimal(text[1:]) for text in seen.cells(".sum", 4)]
    assert sum(costs) == Decimal(dialog.locator(".sum tfoot td").last.text_content()[1:])
    for part in ("gpt-5-mini", "tenant", "price list", "genai-prices", "1M tokens"):
        assert part in dialog.text_content()
    sent = page.url
    page.keyboard.press("Escape")
    page.wait_for_function("() => !location.search.includes('call=')")
    assert dialog.is_hidden()
    assert button.evaluate("it => it === document.activeElement")
    seen.open(sent)
    dialog.locator(".sum").wait_for()
    dialog.get_by_role("button", name="Close").click()
    page.wait_for_function("() => !location.search.includes('call=')")

    newest = seen.cells("#calls-table", 1)
    page.locator("#calls-older").click()
    page.locator("#calls-title", has_text="Older calls").wait_for()
    assert len(seen.cells("#calls-table", 1)) == 50
    asked = [url for url, _ in seen.statuses if "/calls?" in url]
    assert "range=30d" in asked[-1], "of the time that is looked at"
    page.reload()
    page.locator("#calls-title", has_text="Older calls").wait_for()
    seen.click("#calls-newest")
    assert seen.cells("#calls-table", 1) == newest


def edit_budgets(seen: Visit) -> None:
    page = seen.page
    page.locator("#budget-add").click()
    page.fill("#budget-form [name=name]", "made here")
    page.fill("#budget-form [name=limit_usd]", "12.50")
    page.fill("#budget-form [name=alert_at]", "2000")
    page.locator("#budget-form [type=submit]").click()
    page.locator("#budget-form [name=alert_at][aria-invalid]").wait_for()
    assert "alert_at" in seen.text("#budget-problem")
    page.fill("#budget-form [name=alert_at]", "80")
    page.fill("#budget-form [name=where]", "feature=chat")
    page.locator("#budget-form [type=submit]").click()
    page.locator("#budget").wait_for(state="hidden")
    if page.locator("#budgets-more").is_visible():
        page.locator("#budgets-more").click()
    made = page.locator("#budgets > li", has_text="made here")
    made.wait_for()
    made.get_by_role("button", name="Edit").click()
    page.wait_for_function(
        "() => document.forms['budget-form'].elements.where.value === 'feature=chat'"
    )
    assert page.input_value("#budget-form [name=limit_usd]") == "12.50"
    assert page.input_value("#budget-form [name=alert_at]") == "80"
    page.fill("#budget-form [name=limit_usd]", "25")
    page.locator("#budget-form [type=submit]").click()
    page.locator("#budgets > li", has_text="of $25.00").wait_for()
    made.get_by_role("button", name="Edit").click()
    page.locator("#budget-remove").click()
    assert "gone with it" in seen.text("#budget-problem"), "it asks before"
    page.locator("#budget-remove").click()
    made.wait_for(state="detached")


def take_it_away(seen: Visit) -> None:
    page = seen.page
    seen.choose("#by", "model")
    page.locator("#exports-open").click()
    for part in ("breakdown", "series", "calls"):
        for form in ("csv", "json"):
            with page.expect_download() as downloading:
                page.locator(f"#export-{part}-{form}").click()
            text = Path(downloading.value.path()).read_text("utf-8-sig")
            if form == "json":
                assert json.loads(text)
            else:
                assert len(text.splitlines()) > 3
                assert downloading.value.suggested_filename.endswith(".csv")
    assert (
        page.locator("#report").get_attribute("href") == f"report?month={datetime.now(UTC):%Y-%m}"
    )
    page.evaluate("window.print = () => { window.printed = true; }")
    page.locator("#print").click()
    assert page.evaluate("window.printed")
    page.emulate_media(media="print")
    assert page.locator(".controls").is_hidden()
    page.emulate_media(media="screen")
    page.locator("#theme").click()
    drawn(page)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(244, 245, 247)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"
    page.reload()
    seen.settle()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 21)"
    assert page.evaluate("JSON.stringify(localStorage)") == '{"costmw-theme":"dark"}'


def test_every_interaction_works(sites: dict[str, str], visit: Callable[..., Visit]) -> None:
    seen = visit(color_scheme="light").open(sites["fastapi"])
    drawn(seen.page)
    look_at_the_first_screen(seen)
    change_what_is_drawn(seen)
    group_and_sort(seen)
    filter_calls(seen)
    change_the_time(seen)
    go_into_the_chart(seen)
    open_a_call(seen)
    edit_budgets(seen)
    take_it_away(seen)
    assert seen.violations() == []
    assert seen.complaints == [REFUSED]


@pytest.mark.parametrize("host", ["flask", "django"])
def test_another_host_serves_all_that_the_page_is_made_of(
    host: str,
    sites: dict[str, str],
    request: pytest.FixtureRequest,
    visit: Callable[..., Visit],
) -> None:
    address = request.getfixturevalue("django") if host == "django" else sites[host]
    seen = visit(color_scheme="light").open(address.removesuffix("/"))
    assert seen.page.url == address, "the slash is added"
    drawn(seen.page)
    assert len(seen.answers("/static/")) == 5
    assert {status for _, status in seen.statuses} <= {200, 301, 307}
    look_at_the_first_screen(seen)
    seen.open(f"{address}?filter=tag:tenant:is:acme&filter=model:not:gpt-5")
    assert seen.page.locator("#filters .chip").count() == 2
    assert "gpt-5" not in seen.cells("#calls-table", 2)
    seen.open(address)
    open_a_call(seen)
    edit_budgets(seen)
    take_it_away(seen)
    assert seen.violations() == []
    assert seen.complaints == [REFUSED]


@pytest.mark.parametrize("site", ["fastapi, prefix cut", "fastapi, root path"])
def test_everything_is_there_behind_a_prefix(
    site: str, sites: dict[str, str], visit: Callable[..., Visit]
) -> None:
    seen = visit().open(sites[site])
    drawn(seen.page)
    assert len(seen.answers("/static/")) == 5
    assert {status for _, status in seen.statuses} == {200}
    assert seen.violations() == []
    assert seen.complaints == []


# For everyone.


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_is_accessible_and_fits(
    scheme: str, width: int, sites: dict[str, str], visit: Callable[..., Visit]
) -> None:
    seen = visit(
        viewport={"width": width, "height": 844},
        color_scheme=scheme,
        reduced_motion="reduce",
        has_touch=width == 390,
    )
    seen.open(f"{sites['fastapi']}?filter=tag:team:is:core&filter=tag:user:set")
    page = seen.page
    drawn(page)
    if width == 390:
        page.locator("#trend-plot").tap()
        page.locator("#trend-tip").wait_for()
        assert within(page.locator("#trend-tip"), width)
        assert "range" not in seen.query(), "the first touch tells, the second goes into it"
        page.locator("#trend-plot").tap()
        page.wait_for_url("**range=custom**")
        page.go_back()
        page.locator("#dates-open").wait_for(state="hidden")
        drawn(page)
    page.locator("#trend-details summary").click()
    assert findings(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    if width == 390:
        assert page.evaluate(
            """[...document.querySelectorAll('#calls-table td:nth-child(3)')]
                .every((cell) => cell.getBoundingClientRect().right <= innerWidth)"""
        ), "what calls cost is seen without scrolling"
    for opener, opened in (
        ("#filter-add", "#filter"),
        ("#budget-add", "#budget"),
        ("#calls-table button", "#detail"),
        ("#exports-open", "#exports"),
        ("#warning", "#notices"),
    ):
        page.locator(opener).first.click()
        page.locator(opened).wait_for()
        assert within(page.locator(opened), width)
        assert findings(page, opened) == []
        page.keyboard.press("Escape")
        page.locator(opened).wait_for(state="hidden")
    assert seen.complaints == []


def within(found: Any, width: int) -> bool:
    """Whether all of it is on the screen from left to right."""
    box = found.bounding_box()
    return bool(box["x"] >= 0 and box["x"] + box["width"] <= width)


def findings(page: Any, within: str | None = None) -> list[str]:
    """What axe finds wrong, all of its rules."""
    found = Axe().run(page, context=within)
    assert len(found.response["passes"]) >= 10, "it has looked"
    return [
        f"{one['id']}: {node['html'][:120]}"
        for one in found.response["violations"]
        for node in one["nodes"]
    ]


def without_nul(text: str) -> str:
    """NUL is stored as the sign that stands for what cannot be shown."""
    return text.replace("\0", "").replace("\ufffd", "")


def test_hostile_values_are_text_everywhere(
    sites: dict[str, str], visit: Callable[..., Visit]
) -> None:
    seen = visit().open(f"{sites['fastapi']}?top=50&range=today")
    page = seen.page
    calls = without_nul(seen.text("#calls-table"))
    table = without_nul(seen.text("#breakdown-table"))
    for value in map(without_nul, HOSTILE):
        assert value in calls
        assert value in table
    titles = page.locator("#breakdown-table thead th").all_text_contents()
    for column in ("Per call", "Per request"):
        costs = seen.cells("#breakdown-table", titles.index(column) + 1)
        assert "$0.00" not in costs, "without a price nothing is known"
    seen.choose("#by", f"tag:{HOSTILE[0]}")
    assert HOSTILE[0] in seen.text("#trend-title")
    assert f"Only {HOSTILE[0]}" in seen.cells("#breakdown-table", 1)
    drawn(page)
    page.locator("#trend-plot").hover()
    page.locator("#breakdown-table .value", has_text=HOSTILE[0]).click()
    page.locator("#filters .chip", has_text=HOSTILE[0]).wait_for()
    assert len(seen.cells("#calls-table", 1)) >= 1
    page.locator("#filters .chip button").first.click()
    page.locator("#filter-values input").first.wait_for()
    page.keyboard.press("Escape")
    page.locator("#calls-table button").first.click()
    page.locator("#detail dd").first.wait_for()
    page.keyboard.press("Escape")
    assert page.locator("img, iframe, main script, dialog script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert seen.complaints == []
    assert seen.violations() == []


def test_a_view_that_cannot_be_asked_for_says_so(
    sites: dict[str, str], visit: Callable[..., Visit]
) -> None:
    seen = visit()
    seen.page.goto(f"{sites['fastapi']}?range=yesterday")
    seen.page.locator("#problem").wait_for()
    assert "range" in seen.text("#problem")
    seen.page.get_by_role("button", name="Start over").click()
    seen.page.locator("body:not(.loading)").wait_for()
    assert seen.page.locator("#problem").is_hidden()


def test_money_is_written_from_its_digits(visit: Callable[..., Visit]) -> None:
    cases: dict[str, list[tuple[Any, Any]]] = {
        "usd": [
            (None, "—"),
            ("0.00", "$0.00"),
            ("1204.11", "$1,204.11"),
            ("1234567.005", "$1,234,567.01"),
            ("9007199254740993.01", "$9,007,199,254,740,993.01"),
            ("0.5", "$0.50"),
            ("0.29", "$0.29"),
            ("0.12345", "$0.123"),
            ("0.00412", "$0.00412"),
            ("0.0036", "$0.00360"),
            ("0.999999", "$1.000"),
            ("0.000000000001", "$0.000000000001"),
            ("-3.5", "\u2212$3.50"),
        ],
        "exactUsd": [(None, "unknown"), ("0.0000034", "$0.0000034"), ("1000", "$1,000.00")],
        "signedUsd": [("0.5", "+$0.50"), ("-0.5", "\u2212$0.50"), ("0", "$0.00")],
        "sum": [
            (["9007199254740993.000000000001", "0.1", None], "9007199254740993.100000000001"),
            (["0.1", "0.2"], "0.3"),
            (["1", "-1.5"], "-0.5"),
        ],
        "divided": [(["1", 3], "0.333333333333")],
        "shareOf": [(["1", "4"], 0.25), (["1", "0"], 0)],
    }
    check_writing(visit().page, "money.js", cases)


def test_numbers_and_times_are_short_enough_to_read(visit: Callable[..., Visit]) -> None:
    cases = {
        "short": [(5, "5"), (2000, "2,000"), (20_000, "20.0K"), (3_804_000, "3.80M")],
        "duration": [(None, "—"), (999, "999 ms"), (1234, "1.23 s"), (754_000, "754 s")],
        "percent": [(0, "0.0%"), (0.0004, "<0.1%"), (0.125, "12.5%")],
    }
    check_writing(visit().page, "format.js", cases)


def check_writing(page: Any, module: str, functions: dict[str, list[tuple[Any, Any]]]) -> None:
    source = (MODULES / module).read_text("utf-8")
    for function, cases in functions.items():
        written = page.evaluate(
            "async ([source, name, cases]) => {"
            "  const file = new Blob([source], { type: 'text/javascript' });"
            "  const money = await import(URL.createObjectURL(file));"
            "  return cases.map((it) => [it].flat()).map((it) => money[name](...it));"
            "}",
            [source, function, [case for case, _ in cases]],
        )
        assert written == [expected for _, expected in cases]


# Life.


@pytest.fixture
def own(tmp_path: Path, cleanup: ExitStack) -> Iterator[Callable[..., tuple[Meter, str]]]:
    """Makes an empty meter, and a server for it."""
    with ExitStack() as stack:

        def make(auth: Any = let_in, **options: Any) -> tuple[Meter, str]:
            meter = a_meter(tmp_path, **options)
            stack.callback(meter.close)
            return meter, stack.enter_context(serving_asgi(mounted(meter, auth))) + "/_llmcost/"

        yield make


def later(page: Any, happened: Callable[[], bool]) -> None:
    """Let the page's clock run 15 seconds on, again and again, until something has happened."""
    for _ in range(300):
        if happened():
            return
        page.clock.fast_forward(15_000)
        page.wait_for_timeout(100)
    raise AssertionError("it did not happen")


def record(meter: Meter, model: str) -> None:
    meter.record(provider="openai", model=model, cost="1.25", tags={"tenant": "acme"})


def test_it_begins_empty_and_fills_by_itself(
    own: Callable[..., tuple[Meter, str]], visit: Callable[..., Visit]
) -> None:
    meter, address = own()
    seen = visit()
    page = seen.page
    page.clock.install()
    seen.open(address, wait_for="#empty")
    assert "meter.instrument(" in seen.text("#empty")
    assert page.locator("#views").is_hidden()

    record(meter, "first-model")
    later(page, page.locator("#views").is_visible)
    assert page.locator("#empty").is_hidden()
    assert seen.text("#breakdown-title") == "By tenant", "the first common tag that is in use"
    assert "$1.25" in seen.text("#kpis")
    assert "No budget is set" in seen.text("#kpis")
    assert "No forecast yet" in seen.text("#kpis")
    assert "Nothing unusual" in seen.text("#anomalies")
    assert seen.complaints == []


def test_it_asks_every_15_seconds_and_disturbs_nobody(
    own: Callable[..., tuple[Meter, str]], visit: Callable[..., Visit]
) -> None:
    meter, address = own()
    record(meter, "first-model")
    seen = visit()
    page = seen.page
    page.clock.install()
    seen.open(address)
    later(page, lambda: 304 in seen.answers("/overview"))
    assert set(seen.answers("/overview")) == {200, 304}

    page.locator("#calls-table button").first.focus()
    record(meter, "second-model")
    later(page, page.locator("#calls-table tr", has_text="second-model").is_visible)
    assert "first-model" in page.evaluate("document.activeElement.closest('tr').textContent")

    page.locator("#filter-add").click()
    page.select_option("#filter-form [name=key]", "model")
    page.fill("#filter-form [name=text]", "first")
    choice = page.locator("#filter-values input")
    page.locator("#filter-values li:only-child", has_text="first-model").wait_for()
    choice.check()
    record(meter, "third-model")
    later(page, lambda: page.locator("#calls-table tr", has_text="third-model").count() == 1)
    assert page.input_value("#filter-form [name=text]") == "first", "what is typed stays"
    assert choice.is_checked()
    assert page.evaluate("document.activeElement.closest('dialog').id") == "filter"
    assert seen.complaints == []


def test_it_rests_while_nobody_looks(
    own: Callable[..., tuple[Meter, str]], visit: Callable[..., Visit]
) -> None:
    meter, address = own()
    record(meter, "first-model")
    seen = visit()
    page = seen.page
    page.clock.install()
    page.add_init_script(
        "let away = false;"
        "Object.defineProperty(document, 'hidden', { get: () => away });"
        "window.look = (here) => {"
        "  away = !here; document.dispatchEvent(new Event('visibilitychange'));"
        "};"
    )
    seen.open(address)
    page.wait_for_load_state("networkidle")
    before = len(seen.answers("/overview"))
    page.evaluate("look(false)")
    page.clock.fast_forward(120_000)
    page.evaluate("0")
    assert len(seen.answers("/overview")) == before
    with page.expect_response("**/api/v1/overview*"):
        page.evaluate("look(true)")
        page.clock.run_for(10)


def test_a_server_that_cannot_be_reached_is_said_and_recovered_from(
    own: Callable[..., tuple[Meter, str]], visit: Callable[..., Visit]
) -> None:
    meter, address = own()
    record(meter, "first-model")
    seen = visit()
    page = seen.page
    page.clock.install()
    seen.open(address)
    page.route("**/api/**", lambda route: route.abort())
    problem = page.get_by_role("alert")
    later(page, problem.is_visible)
    assert "cannot be reached" in problem.text_content()
    assert "The numbers are from" in problem.text_content()
    assert page.locator("#kpis .figure").first.is_visible()

    page.unroute("**/api/**")
    page.get_by_role("button", name="Try now").click()
    problem.wait_for(state="hidden")


def test_a_store_that_cannot_be_read_is_told_with_what_to_do(
    own: Callable[..., tuple[Meter, str]], visit: Callable[..., Visit], tmp_path: Path
) -> None:
    (tmp_path / "llmcost.db").write_bytes(b"this is no database" * 100)
    _, address = own()
    seen = visit().open(address, wait_for="#problem")
    assert "The store cannot be read." in seen.text("#problem")
    assert "llmcost.db" in seen.text("#problem")


def test_whoever_is_confined_sees_to_what_and_nothing_else(
    full: Meter, visit: Callable[..., Visit]
) -> None:
    def auth(_: object) -> Principal:
        return Principal(scope={"tenant": "acme"}, can_edit=True)

    with serving_asgi(mounted(full, auth)) as base:
        seen = visit().open(f"{base}/_llmcost/?by=tag:tenant")
        assert seen.text("#scope li") == "tenant: acme"
        assert seen.cells("#breakdown-table", 1) == ["Only acme"]
        assert seen.page.locator("#budget-add").is_hidden()
        seen.page.locator("#filter-add").click()
        seen.page.select_option("#filter-form [name=key]", "tag:tenant")
        seen.page.locator("#filter-values li", has_text="acme").wait_for()
        assert "globex" not in seen.page.content()


def test_a_browser_signs_in_with_the_token(full: Meter, visit: Callable[..., Visit]) -> None:
    with serving_asgi(mounted(full, token(SECRET))) as base:
        seen = visit(http_credentials={"username": "me", "password": SECRET})
        seen.open(f"{base}/_llmcost/")
        assert seen.complaints == []
        stranger = visit(http_credentials={"username": "me", "password": "a wrong guess"})
        stranger.page.goto(f"{base}/_llmcost/")
        assert "Sign in" in stranger.text("h1")


def test_a_page_without_auth_says_how_to_open_it(full: Meter, visit: Callable[..., Visit]) -> None:
    with serving_asgi(mounted(full, None)) as base:
        seen = visit().open(f"{base}/_llmcost/", wait_for="h1")
        assert seen.text("h1") == "This page is closed"
        assert seen.page.evaluate("getComputedStyle(document.body).maxWidth") == "672px"
        assert seen.violations() == []
