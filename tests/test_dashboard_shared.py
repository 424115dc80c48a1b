"""Answers that are made once for all viewers, and sent again only when they are new."""

from __future__ import annotations

import gzip
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from costmw import Meter
from costmw.dashboard import Principal
from costmw.dashboard.encoding import LEAST, accepts_gzip
from costmw.dashboard.responses import Told
from costmw.dashboard.shared import FRESH, KEPT_AT_MOST, Shared
from costmw.errors import StoreError
from costmw.reports import Reports
from dashboard_client import Client
from rows import an_event

ACME, GLOBEX = Principal({"tenant": "acme"}), Principal({"tenant": "globex"})


def test_of_those_who_ask_at_once_one_makes_the_answer() -> None:
    shared: Shared[object] = Shared()
    made: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def make() -> object:
        made.append("x")
        begun.set()
        assert go_on.wait(10)
        return object()

    found: list[object] = []
    viewers = [
        threading.Thread(target=lambda: found.append(shared.get("same", make))) for _ in range(8)
    ]
    for viewer in viewers:
        viewer.start()
    assert begun.wait(10)
    other = shared.get("other", lambda: "nobody waits for what others ask")
    assert other.startswith("nobody")  # type: ignore[attr-defined]
    go_on.set()
    for viewer in viewers:
        viewer.join(10)
    assert ["x"] == made
    assert (8, 1) == (len(found), len(set(map(id, found))))


def test_an_answer_is_given_again_for_two_seconds_since_it_was_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = 100.0
    monkeypatch.setattr("costmw.dashboard.shared.time.monotonic", lambda: moment)
    shared: Shared[float] = Shared()

    def slow() -> float:
        nonlocal moment
        begun = moment
        moment += 1.5
        return begun

    assert 100.0 == shared.get("a", slow)
    moment = 100.0 + FRESH
    assert 100.0 == shared.get("a", slow)
    moment = 100.1 + FRESH
    assert 100.1 + FRESH == shared.get("a", slow)
    shared.forget()
    assert 103.6 == pytest.approx(shared.get("a", slow)), "what was changed is asked anew"


def test_an_error_is_for_whoever_met_it() -> None:
    shared: Shared[int] = Shared()
    with pytest.raises(ZeroDivisionError):
        shared.get("a", lambda: 1 // 0)
    assert 2 == shared.get("a", lambda: 2)


def test_those_who_wait_for_an_answer_meet_its_error_together() -> None:
    """One after the other, they would hold a thread each until the last one has met it."""
    shared: Shared[int] = Shared()
    tried: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def make() -> int:
        tried.append("x")
        begun.set()
        assert go_on.wait(10)
        raise StoreError("the store is away")

    def look() -> None:
        with pytest.raises(StoreError):
            shared.get("same", make)

    with ThreadPoolExecutor(8) as viewers:
        looks = [viewers.submit(look) for _ in range(8)]
        assert begun.wait(10)
        deadline = time.monotonic() + 5
        while viewers._work_queue.qsize() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        go_on.set()
        for one in looks:
            one.result(10)
    assert ["x"] == tried
    assert 2 == shared.get("same", lambda: 2), "whoever comes later tries anew"


def test_an_answer_from_before_does_not_come_back_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = 100.0
    monkeypatch.setattr("costmw.dashboard.shared.time.monotonic", lambda: moment)
    shared: Shared[int] = Shared()
    assert 1 == shared.get("a", lambda: 1)
    moment = 200.0
    with pytest.raises(ZeroDivisionError):
        shared.get("a", lambda: 1 // 0)
    moment = 201.0
    assert 2 == shared.get("a", lambda: 2)


def test_few_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shared: Shared[int] = Shared()
    for n in range(KEPT_AT_MOST * 2):
        shared.get(n, lambda: 1)
    assert shared._state is not None
    assert KEPT_AT_MOST == len(shared._state.kept)
    now = time.monotonic()
    monkeypatch.setattr("costmw.dashboard.shared.time.monotonic", lambda: now + FRESH + 1)
    shared.get("new", lambda: 1)
    assert ["new"] == list(shared._state.kept), "what nobody is given again is not kept"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_waits_for_nobody_of_its_parent() -> None:
    shared: Shared[int] = Shared()
    begun, go_on = threading.Event(), threading.Event()

    def make() -> int:
        begun.set()
        assert go_on.wait(20)
        return 1

    viewer = threading.Thread(target=shared.get, args=("a", make))
    viewer.start()
    assert begun.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(shared.get("a", lambda: 7))
    deadline = time.monotonic() + 10
    status = (0, 0)
    while status[0] == 0 and time.monotonic() < deadline:
        status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if status[0] == 0:
        os.kill(child, 9)
        os.waitpid(child, 0)
    go_on.set()
    viewer.join(10)
    assert 7 == os.waitstatus_to_exitcode(status[1])
    assert status[0] == child


@pytest.fixture
def tenants(make_meter: Callable[..., Meter]) -> Meter:
    meter = make_meter()
    for tenant in ("acme", "globex"):
        meter.record(provider="openai", model="m", cost="1", tags={"tenant": tenant})
    return meter


def test_all_viewers_of_a_scope_share_an_answer(
    tenants: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    whole = type(tenants.reports).overview

    def overview(self: object, question: object, **more: object) -> object:
        asked.append(more["scope"])
        return whole(self, question, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("costmw.reports.Reports.overview", overview)
    dashboard = Client(tenants).dashboard
    for _ in range(3):
        Client(dashboard, ACME).read("overview")
        Client(dashboard, Principal({"tenant": "acme"})).read("overview?chart=line")
    assert [{"tenant": "acme"}] == [dict(scope) for scope in asked]  # type: ignore[call-overload]
    Client(dashboard, GLOBEX).read("overview")
    Client(dashboard, ACME).read("overview?by=model")
    Client(dashboard, Principal()).read("overview")
    Client(dashboard, Principal(can_edit=True)).read("overview")
    assert 5 == len(asked)


@pytest.mark.parametrize(
    "path", ["overview", "breakdown", "series", "budgets", "forecast", "anomalies", "openapi.json"]
)
def test_what_is_not_new_is_not_sent_again(tenants: Meter, path: str) -> None:
    client = Client(tenants)
    etag = client.api(path).headers["ETag"]
    for sent in (etag, f'W/"other", {etag}', f"{etag},"):
        again = Client(tenants).api(path, if_none_match=sent)
        assert (304, b"", etag) == (again.status, again.body, again.headers["ETag"])
        assert "Content-Length" not in again.headers
    for other in ("", '"', "*x", etag.replace("W/", "")[:-2]):
        assert 200 == client.api(path, if_none_match=other).status


def test_an_answer_is_new_with_a_call_of_ones_own_only(tenants: Meter) -> None:
    def etag(principal: Principal) -> str:
        return Client(tenants, principal).api("overview").headers["ETag"]

    before = {one: etag(Principal({"tenant": one})) for one in ("acme", "globex")}
    tenants.record(provider="openai", model="m", cost="1", tags={"tenant": "globex"})
    assert before["acme"] == etag(ACME), "what others do is not seen, not even that they do"
    assert before["globex"] != etag(GLOBEX)


def test_what_is_foreseen_is_another_by_the_minute(make_meter: Callable[..., Meter]) -> None:
    """Or else no answer would ever be the one that a page has already."""
    meter = make_meter()
    moment = datetime(2026, 10, 20, 15, 7, 10, tzinfo=UTC)
    meter.store.open()
    meter.store.write(
        [
            an_event((50 + day % 7) * 10**10, created_at=moment - timedelta(days=day))
            for day in range(1, 40)
        ]
    )

    def etag(seconds: int) -> str:
        at = moment + timedelta(seconds=seconds)
        overview = Reports(meter.store, now=lambda: at).overview()
        assert (at, True) == (overview.generated_at, overview.forecast is not None)
        return Told.of(overview).etag

    assert etag(0) == etag(45)
    assert etag(0) != etag(55)


def test_answers_and_files_are_compressed_for_those_who_accept_it(tenants: Meter) -> None:
    client = Client(tenants)
    page = client.ask("").body.decode()
    style = re.findall(r'href="([^"]+\.css)"', page)[0]
    for path in ("", style, "api/v1/overview", "api/v1/series", "report?month=2026-10"):
        plain, packed = client.ask(path), client.ask(path, accept_encoding="br, gzip;q=0.5")
        assert len(plain.body) >= LEAST, path
        assert "Accept-Encoding" == plain.headers["Vary"] == packed.headers["Vary"]
        assert "Content-Encoding" not in plain.headers
        assert "gzip" == packed.headers["Content-Encoding"]
        assert str(len(packed.body)) == packed.headers["Content-Length"]
        assert len(packed.body) < len(plain.body)
        if not path.startswith("report"):  # which says when it was made
            assert plain.body == gzip.decompress(packed.body)
        assert b"" == client.ask(path, "HEAD", accept_encoding="gzip").body
    small = client.ask("api/v1/values?key=model", accept_encoding="gzip")
    assert len(small.body) < LEAST
    assert "Content-Encoding" not in small.headers


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0.001", True),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("identity", False),
    ],
)
def test_who_accepts_gzip(header: str, expected: bool) -> None:
    assert expected == accepts_gzip(header)
