"""The page in a real browser: drawn, safe with hostile data, usable by keyboard, live."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import werkzeug.serving
from fastapi import FastAPI
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from chromium import INSTALL, find
from costmw import Budget, Config, Meter
from costmw.context import Scope, enter_scope
from costmw.dashboard import DashboardASGI, DashboardWSGI, Principal, token
from costmw.events import Outcome

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
)
OPEN = Principal()


def let_in(_: object) -> Principal:
    return OPEN


# What is shown.


def fill(meter: Meter) -> None:
    """Thirty days and more of calls of two tenants, then calls with hostile values."""
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
        rows.append(event)
    rows += [Outcome("error", now, "openai", "gpt-5", {"tenant": "acme"})] * 3
    rows += [Outcome("retry", now, "openai", "gpt-5", {"tenant": "acme"})]
    meter.store.write(rows)
    for value in HOSTILE:
        meter.record(
            provider="openai",
            model=value,
            input_tokens=1,
            output_tokens=1,
            tags={"feature": value, "user": value, value[:64]: value},
        )


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
    app.mount("/_llmcost", DashboardASGI(meter, auth))
    return app


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
    wsgi = cleanup.enter_context(
        serving_wsgi(
            DispatcherMiddleware(Flask("host"), {"/pre/_llmcost": DashboardWSGI(full, let_in)})
        )
    )
    return {
        "asgi": f"{asgi}/_llmcost/",
        "asgi, prefix cut": f"{asgi}/cut/_llmcost/",
        "asgi, root path": f"{asgi}/told/_llmcost/",
        "wsgi": f"{wsgi}/pre/_llmcost/",
    }


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

    def open(self, address: str, wait_for: str = "#views") -> Visit:
        self.page.goto(address)
        self.page.locator(wait_for).wait_for(state="visible")
        return self

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
        context.set_default_timeout(10_000)
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
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return pixels.some((part) => part !== 0);
}"""


# The tests.


@pytest.mark.parametrize("site", ["asgi", "asgi, prefix cut", "asgi, root path", "wsgi"])
def test_everything_loads_and_keeps_to_the_policy(
    site: str, sites: dict[str, str], visit: Callable[..., Visit]
) -> None:
    seen = visit().open(sites[site])
    page = seen.page
    for chart in ("#trend-chart", "#unit-chart"):
        canvas = page.locator(chart)
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        for share in (0.3, 0.6, 0.9):
            page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
        assert canvas.evaluate(IS_DRAWN)
    page.locator("#theme").click()
    page.locator("#calls-table button").first.click()
    page.keyboard.press("Escape")
    assert len(seen.answers("/static/")) >= 20
    assert {status for _, status in seen.statuses} == {200}
    assert seen.violations() == []
    assert seen.complaints == []


def test_hostile_values_are_text_everywhere(
    sites: dict[str, str], visit: Callable[..., Visit]
) -> None:
    seen = visit().open(sites["asgi"])
    page = seen.page
    calls = page.locator("#calls-table").text_content()
    for value in HOSTILE:
        assert value in calls
    page.select_option("#tag", HOSTILE[0])
    page.locator("#tag-column", has_text=HOSTILE[0]).wait_for()
    assert HOSTILE[0] in seen.cells("#tag-table", 1)
    page.locator("#warning").click()
    for value in HOSTILE:
        page.locator("#calls-table tr", has_text=value).first.locator("button").click()
        assert value in page.locator("#detail-title").text_content()
        assert page.locator("#detail-body dd", has_text=value).count() >= 3
        page.keyboard.press("Escape")
    assert page.locator("img, iframe, main script, dialog script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert seen.complaints == []
    assert seen.violations() == []


def test_the_views_are_drawn_with_their_tables(
    full: Meter, sites: dict[str, str], visit: Callable[..., Visit]
) -> None:
    seen = visit().open(sites["asgi"])
    page = seen.page
    overview = full.reports.overview()
    month = overview.month.sums
    cards = seen.text("#kpis")
    for label in ("Spend this month", "Cost per call", "Cost per web request", "Tokens", "Budget"):
        assert label in cards
    assert f"{month.calls} calls" in cards
    assert page.locator("#kpis .figure > span").first.get_attribute("title").startswith("$")

    assert len(seen.cells("#trend-table", 1)) == 30
    assert page.locator("#trend-legend .estimated").is_visible()
    assert [int(text) for text in seen.cells("#trend-table", 4)] == [
        point.sums.calls for point in reversed(overview.trend.points)
    ]
    assert seen.cells("#model-table", 1)[:3] == [row.value for row in overview.by_model.rows[:3]]
    assert seen.cells("#tag-table", 1)[0] == overview.by_tag.rows[0].value
    assert len(seen.cells("#unit-table", 1)) == 30
    tokens = overview.tokens
    assert seen.cells("#tokens-table", 2) == [
        f"{count:,}"
        for count in (
            tokens.uncached_input_tokens,
            tokens.cache_read_input_tokens,
            tokens.cache_write_input_tokens,
            tokens.output_tokens - tokens.reasoning_output_tokens,
            tokens.reasoning_output_tokens,
        )
    ]
    assert page.locator("#budgets [role=meter]").count() == len(overview.budgets) == 4
    assert "used up" in seen.text("#budgets")
    assert seen.cells("#outcomes-table", 4) == ["3", "1"]
    assert len(seen.cells("#calls-table", 1)) == 20

    for canvas in page.locator("canvas").all():
        assert canvas.get_attribute("role") == "img"
        assert "$" in canvas.get_attribute("aria-label")
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#trend-table").is_visible()
    assert "unpriced calls" in seen.text("#warning")
    page.locator("#warning").focus()
    page.keyboard.press("Enter")
    assert page.locator("#notices").is_visible()
    assert "Updated" in seen.text("#freshness")
    assert seen.text("#zone") == "Days and times in UTC."


def test_the_tag_is_chosen_by_a_select_and_kept_in_the_address(
    sites: dict[str, str], visit: Callable[..., Visit]
) -> None:
    seen = visit().open(sites["asgi"])
    page = seen.page
    options = page.locator("#tag option").all_text_contents()
    assert options[:5] == ["feature", "team", "tenant", "user", "route"]
    assert seen.text("#tag-column") == "feature"

    page.locator("#tag").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.locator("#tag-column", has_text="tenant").wait_for()
    assert page.url == sites["asgi"] + "?tag=tenant"
    assert {"acme", "globex"} < set(seen.cells("#tag-table", 1))

    page.reload()
    page.locator("#tag-column", has_text="tenant").wait_for()
    assert page.locator("#tag").input_value() == "tenant"
    page.go_back()
    page.locator("#tag-column", has_text="team").wait_for()
    assert seen.complaints == []


def test_a_call_opens_by_keyboard_and_gives_the_focus_back(
    sites: dict[str, str], visit: Callable[..., Visit]
) -> None:
    seen = visit().open(sites["asgi"])
    page = seen.page
    button = page.locator("#calls-table tr", has_text="gpt-5-mini").first.locator("button")
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#detail")
    assert dialog.is_visible()
    text = dialog.text_content()
    for part in ("gpt-5-mini", "tenant", "/chat/{id}", "price list", "genai-prices", "$0.25"):
        assert part in text
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert button.evaluate("it => it === document.activeElement")

    page.locator("#calls-table tr", has_text=HOSTILE[0]).first.locator("td").last.click()
    assert "not in the price list" in dialog.text_content()
    dialog.get_by_role("button", name="Close").click()
    assert dialog.is_hidden()


def test_more_calls_are_shown_when_asked_for(
    sites: dict[str, str], visit: Callable[..., Visit]
) -> None:
    seen = visit().open(sites["asgi"])
    for wanted in (50, 100, 167):
        seen.page.locator("#calls-more").click()
        seen.page.locator(f"#calls-table tbody tr:nth-child({wanted})").wait_for()
        assert len(seen.cells("#calls-table", 1)) == wanted
    assert seen.page.locator("#calls-more").is_hidden()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {"color_scheme": "light"}),
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 390, "height": 844}, "has_touch": True}),
    ],
)
def test_it_fits_in_light_in_dark_and_on_a_phone(
    name: str,
    options: dict[str, Any],
    sites: dict[str, str],
    visit: Callable[..., Visit],
    tmp_path: Path,
) -> None:
    seen = visit(reduced_motion="reduce", **options).open(sites["asgi"])
    page = seen.page
    page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(14, 17, 21)") == (name == "dark")
    page.locator("#calls-table button").first.click()
    box = page.locator("#detail").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= page.viewport_size["width"]


def test_the_theme_is_chosen_by_a_button_and_remembered(
    sites: dict[str, str], visit: Callable[..., Visit]
) -> None:
    seen = visit(color_scheme="light").open(sites["asgi"])
    page = seen.page
    button = page.get_by_role("button", name="Dark theme")
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator("#trend-chart").evaluate(IS_DRAWN)
    page.reload()
    page.locator("#views").wait_for()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 21)"
    assert button.get_attribute("aria-pressed") == "true"
    assert page.evaluate("JSON.stringify(localStorage)") == '{"costmw-theme":"dark"}'


def test_money_is_written_from_its_digits(
    sites: dict[str, str], visit: Callable[..., Visit]
) -> None:
    seen = visit().open(sites["asgi"])
    folder = seen.page.locator("script[type=module]").get_attribute("src").rpartition("/")[0]
    for function, cases in {
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
    }.items():
        written = seen.page.evaluate(
            "async ([path, name, cases]) => {"
            "  const money = await import(new URL(path, location));"
            "  return cases.map((it) => money[name](it));"
            "}",
            [f"{folder}/money.js", function, [case for case, _ in cases]],
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
    for _ in range(50):
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
    assert seen.text("#tag-column") == "feature"
    assert "$1.25" in seen.text("#kpis")
    assert "no budget is set" in seen.text("#kpis")
    assert "No errors" in seen.text("#outcomes-table")
    assert seen.complaints == []


def test_it_asks_every_15_seconds_and_keeps_the_focus(
    own: Callable[..., tuple[Meter, str]], visit: Callable[..., Visit]
) -> None:
    meter, address = own()
    record(meter, "first-model")
    seen = visit()
    page = seen.page
    page.clock.install()
    seen.open(address)
    assert seen.text("#tag-column") == "tenant", "the first key that is in use"

    later(page, lambda: 304 in seen.answers("/overview"))
    assert set(seen.answers("/overview")) == {200, 304}

    focused = page.locator("#calls-table button").first
    focused.focus()
    record(meter, "second-model")
    later(page, page.locator("#calls-table tr", has_text="second-model").is_visible)
    assert page.evaluate("document.activeElement.closest('tr').textContent").count("first-model")
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
    assert page.locator("#views").is_visible()

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
        return Principal(scope={"tenant": "acme"})

    with serving_asgi(mounted(full, auth)) as base:
        seen = visit().open(f"{base}/_llmcost/?tag=tenant")
        assert seen.text("#scope li") == "tenant: acme"
        assert seen.cells("#tag-table", 1) == ["acme"]
        assert "globex" not in seen.page.content()
        empty = visit().open(f"{base}/_llmcost/?tag=team")
        assert empty.cells("#tag-table", 1) == ["core"]


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
