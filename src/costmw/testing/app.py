"""The ASGI application: which endpoint a request is for, and what it gets."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from costmw.testing import anthropic, openai, responses
from costmw.testing.delivery import Delivery
from costmw.testing.reply import Reply, RequestRecord
from costmw.testing.wire import Answer, Call, new_id, verbatim

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from re import Match

    from costmw.testing.delivery import Message, Receive, Send

logger = logging.getLogger("costmw.testing")

_BASE = r"(?:/v1|/openai/v1|/openai/deployments/(?P<deployment>[^/]+))"
_ENDPOINTS: list[tuple[re.Pattern[str], Callable[[Call], Answer]]] = [
    (re.compile(_BASE + "/chat/completions"), openai.chat),
    (re.compile(_BASE + "/embeddings"), openai.embeddings),
    (re.compile(r"(?:/v1|/openai/v1|/openai)/responses"), responses.respond),
    (re.compile("/v1/messages"), anthropic.messages),
]
_MODELS = ("/v1/models", "/openai/v1/models")


class ProviderApp:
    """Serves the providers' endpoints, over any ASGI server and below any mount point.

    choose: Returns the reply to a request that is well-formed.
    on_request: Called with the record of each request, before it is answered.
    on_served: Called with 1 for a 2xx response sent whole, and with -1 to take that back.
    """

    def __init__(
        self,
        *,
        choose: Callable[[RequestRecord], Awaitable[Reply]],
        on_request: Callable[[RequestRecord], None],
        on_served: Callable[[int], None],
    ) -> None:
        self._choose = choose
        self._on_request = on_request
        self._on_served = on_served

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one ASGI scope; anything but HTTP is turned away."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._handle(scope, receive, send)

    async def _handle(self, scope: Message, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        if body is None:
            return
        record = _record(scope, body)
        self._on_request(record)
        gone = asyncio.Event()
        watcher = asyncio.create_task(_watch(receive, gone))
        try:
            answer = _with_request_id(record, await self._answer(record))
            counts = 1 if 200 <= answer.status <= 299 else 0
            delivery = Delivery(
                reply=record.reply or Reply(),
                record=record,
                send=send,
                gone=gone,
                on_whole=lambda: self._on_served(counts),
                on_cut_short=lambda: self._on_served(-counts),
            )
            await delivery.run(answer)
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])

    async def _answer(self, record: RequestRecord) -> Answer:
        if record.path in _MODELS and record.method == "GET":
            return anthropic.models() if _is_anthropic(record) else openai.models()
        found = _find(record.path)
        if found is None:
            return _error(record, 404, f"Invalid URL ({record.method} {record.path})")
        if record.method != "POST":
            return _error(record, 405, f"Not allowed to {record.method} on {record.path}")
        if not isinstance(record.json, dict):
            return _error(record, 400, "We could not parse the JSON body of your request.")
        try:
            reply = await self._choose(record)
        except Exception:
            # Shown here because the client only gets to see a status.
            logger.exception("the responder failed for %s %s", record.method, record.path)
            return _error(record, 500, "The responder of the fake provider failed.")
        record.reply = reply
        endpoint, match = found
        call = Call(
            payload=record.json, reply=reply, deployment=match.groupdict().get("deployment")
        )
        return _with_reply(record, call, endpoint)


def _with_request_id(record: RequestRecord, answer: Answer) -> Answer:
    name = "request-id" if _is_anthropic(record) else "x-request-id"
    return replace(answer, headers={name: new_id("req_"), **answer.headers})


def _with_reply(record: RequestRecord, call: Call, endpoint: Callable[[Call], Answer]) -> Answer:
    reply = call.reply
    if reply.redirect is not None:
        return Answer(
            frames=[b""], status=307, content_type=None, headers={"location": reply.redirect}
        )
    if reply.body is not None:
        return verbatim(reply, streamed=call.streamed)
    if reply.status >= 400:
        return _error(record, reply.status)
    return replace(endpoint(call), status=reply.status)


def _find(path: str) -> tuple[Callable[[Call], Answer], Match[str]] | None:
    for pattern, endpoint in _ENDPOINTS:
        match = pattern.fullmatch(path)
        if match is not None:
            return endpoint, match
    return None


def _error(record: RequestRecord, status: int, message: str | None = None) -> Answer:
    if _is_anthropic(record):
        return anthropic.error(status, message)
    return openai.error(status, message, azure=record.path.startswith("/openai/"))


def _is_anthropic(record: RequestRecord) -> bool:
    return record.path.startswith("/v1/messages") or "anthropic-version" in record.headers


def _record(scope: Message, body: bytes) -> RequestRecord:
    try:
        parsed: Any = json.loads(body)
    except ValueError:
        parsed = None
    return RequestRecord(
        method=scope["method"],
        path=scope["path"].removeprefix(scope.get("root_path", "")),
        query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
        headers={
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        },
        body_bytes=body,
        json=parsed,
        started_at=time.time(),
    )


async def _read(receive: Receive) -> bytes | None:
    """Return the request body, or None if the client left while sending it."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _watch(receive: Receive, gone: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    gone.set()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return
