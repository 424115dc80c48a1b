"""`costmw demo`: the example app, a provider that costs nothing, a past and live traffic."""

from __future__ import annotations

import importlib.util
import math
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from costmw import Budget, Meter
from costmw.errors import ConfigError, MissingExtra
from costmw.events import UsageEvent, new_id

if TYPE_CHECKING:
    from costmw.testing import Reply, RequestRecord

HISTORY_TAG = {"made_up": "history"}
"""On every row that the demo made up; rows of its live traffic do not have it."""

HISTORY_DAYS = 45
SEED = 7

TENANTS = {"acme": ("ann", "bob"), "globex": ("cho",), "initech": ("dee",)}
FEATURES = (
    # feature, route, provider, model, input tokens, output tokens, share of calls
    ("chat", "/chat", "openai", "gpt-5-mini", 2600, 420, 0.5),
    ("chat", "/chat", "openai", "gpt-5", 3200, 600, 0.06),
    ("summary", "/tickets/{ticket_id}/summary", "anthropic", "claude-haiku-4-5", 4200, 160, 0.24),
    ("search", "/search", "openai", "text-embedding-3-small", 180, 0, 0.18),
    ("chat", "/chat", "openai", "acme-tuned-1", 2000, 300, 0.02),
)

QUESTIONS = (
    "Where is my order?",
    "How do I change the address of an invoice that was sent last week?",
    "The export to CSV stops after a thousand rows, and nothing is said about it.",
    "Can two people share one account? We are a small team and do not want to pay twice.",
)


ANSWER = (
    "Thank you for your question. Open the settings, choose the invoice, and correct the "
    "address there; the next copy that you download has it. If it was sent already, we "
    "send a new one on the same day, at no cost."
)


def run_demo(*, port: int = 0, seconds: float | None = None, store: str | None = None) -> None:
    """Serve the demo until Ctrl-C, or for `seconds`; prints the page's address.

    Raises:
        MissingExtra: when the demo's packages are not installed.
        ConfigError: when the port is taken.
    """
    try:
        import fastapi  # noqa: F401
        import openai  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MissingExtra(package=error.name or "fastapi", extra="demo") from error
    from costmw.dashboard.auth import anonymous

    example = _example()
    signal.signal(signal.SIGTERM, _stop)
    with tempfile.TemporaryDirectory(prefix="costmw-demo-") as folder:
        meter = Meter(
            store or f"sqlite:///{folder}/llmcost.db",
            tags={"environment": "demo"},
            budgets=[
                Budget("all of the app", "15", period="month"),
                Budget("each tenant", "6", per="tenant", period="month"),
                Budget(
                    "trial of initech",
                    "0.01",
                    where={"tenant": "initech"},
                    period="day",
                    action="block",
                ),
            ],
        )
        meter.start()
        _say("Making up a past ...")
        meter.store.write(list(made_up_history(meter, datetime.now(UTC))))
        app = example.create_app(meter=meter, page_auth=anonymous())
        app.state.fake_provider.responder = _answer
        listener = _listen(port)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        serving.start()
        try:
            _wait_for(server, serving)
            with _traffic(address):
                _say(f"The page, with live traffic: {address}/_llmcost/")
                _say("Stop with Ctrl-C.")
                serving.join(seconds)
        except KeyboardInterrupt:
            _say("Stopping.")
        finally:
            server.should_exit = True
            serving.join(10)
            meter.close()


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def made_up_history(meter: Meter, now: datetime) -> Iterator[UsageEvent]:
    """Calls of the weeks before `now`, priced like real ones, marked by `HISTORY_TAG`."""
    chance = random.Random(SEED)  # noqa: S311 - a made-up past, the same every time
    for day in range(HISTORY_DAYS, -1, -1):
        start = (now - timedelta(days=day)).replace(hour=0, minute=0, second=0, microsecond=0)
        weekend = 0.35 if start.weekday() >= 5 else 1.0
        growth = 1.0 + (HISTORY_DAYS - day) / HISTORY_DAYS
        seconds = sorted(_busy_second(chance) for _ in range(int(90 * weekend * growth)))
        for second in seconds:
            at = start + timedelta(seconds=second)
            if at < now:
                yield _made_up_call(meter, chance, at)


def _busy_second(chance: random.Random) -> float:
    """A second of the day, most of them in office hours."""
    return min(max(chance.gauss(13.5, 3.5), 0.0), 23.99) * 3600


def _made_up_call(meter: Meter, chance: random.Random, at: datetime) -> UsageEvent:
    feature, route, provider, model, tokens_in, tokens_out, _ = chance.choices(
        FEATURES, weights=[feature[-1] for feature in FEATURES]
    )[0]
    tenant = chance.choices(list(TENANTS), weights=[6, 3, 1])[0]
    spread = math.exp(chance.gauss(0, 0.5))
    used_in = int(tokens_in * spread) + 1
    call = meter.priced(
        provider=provider,
        model=model,
        input_tokens=used_in,
        cache_read_input_tokens=int(used_in * 0.4) if feature == "chat" else 0,
        output_tokens=int(tokens_out * spread),
        operation="embeddings" if feature == "search" else "chat",
        created_at=at,
        latency_ms=int(200 + tokens_out * 6 * spread),
        tags={
            **HISTORY_TAG,
            "route": route,
            "feature": feature,
            "tenant": tenant,
            "user": chance.choice(TENANTS[tenant]),
        },
    )
    return replace(call, request_id=new_id(), first_in_request=True)


def _example() -> ModuleType:
    """The FastAPI example: beside this file in a wheel, in `examples/` of a checkout."""
    here = Path(__file__).parent
    for folder in (here / "examples", here.parents[1] / "examples"):
        path = folder / "fastapi_app" / "app.py"
        if path.is_file():
            spec = importlib.util.spec_from_file_location("costmw_example", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # where dataclasses look for it
            spec.loader.exec_module(module)
            return module
    raise ConfigError("the example app is not part of this installation")


def _listen(port: int) -> socket.socket:
    # The protocol must be named: asyncio turns Nagle's delay off only for such sockets.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"port {port} cannot be used: {error.strerror}; try --port 0") from error
    return listener


def _wait_for(server: Any, serving: threading.Thread) -> None:
    while not server.started:
        if not serving.is_alive():
            raise ConfigError("the example app did not start; see the lines above")
        time.sleep(0.05)


@contextmanager
def _traffic(address: str) -> Iterator[None]:
    """Users who ask something every other second, until the block ends."""
    stop = threading.Event()
    users = [
        threading.Thread(target=_user, args=(address, key, stop), daemon=True)
        for key in ("key-ann", "key-bob", "key-cho", "key-dee")
    ]
    for user in users:
        user.start()
    try:
        yield
    finally:
        stop.set()
        for user in users:
            user.join(5)


def _user(address: str, key: str, stop: threading.Event) -> None:
    import httpx2

    chance = random.Random(key)  # noqa: S311 - who asks what does not matter
    paths = ("/chat", "/chat", "/tickets/{}/summary", "/search")
    with httpx2.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}) as client:
        while not stop.wait(chance.uniform(0.5, 3.0)):
            path = chance.choice(paths).format(chance.randrange(1000))
            text = " ".join(chance.choices(QUESTIONS, k=chance.randint(1, 12)))
            try:
                client.post(path, json={"text": text})
            except httpx2.HTTPError as error:
                if not stop.is_set():
                    _say(f"A request of the demo's traffic failed: {error}")


def _answer(request: RequestRecord) -> Reply | None:
    """An answer of a size that real ones have."""
    from costmw.testing import Reply

    chance = random.Random(request.body_bytes)  # noqa: S311 - any size will do
    size, limit = len(request.body_bytes), request.json.get("max_tokens", 700)
    tokens_in, tokens_out = chance.randint(size // 6, size // 3), chance.randint(60, limit)
    text = " ".join(chance.choices(ANSWER.split(), k=tokens_out // 10))
    usage: dict[str, Any]
    if request.path.endswith("/messages"):
        usage = {"input_tokens": tokens_in, "output_tokens": tokens_out}
    elif request.path.endswith("/chat/completions"):
        usage = {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
            "prompt_tokens_details": {"cached_tokens": tokens_in // 2},
        }
    else:
        return None
    return Reply(text=text, usage=usage, delay=chance.uniform(0.1, 0.5), pace=0.01)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what the command says
