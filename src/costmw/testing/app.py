"""The ASGI application: reads requests, has them answered, and delivers the answers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from costmw.testing.apis import api_of
from costmw.testing.delivery import Delivery
from costmw.testing.reply import Reply, RequestRecord
from costmw.testing.wire import Answer, Call, new_id, verbatim

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from costmw.testing.apis import Api
    from costmw.testing.delivery import Message, Receive, Send

logger = logging.getLogger("costmw.testing")


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
            answer = await self._answer(record)
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
        api, path = api_of(record)
        answer = await self._answer_by(api, path, record)
        if api.request_id is None:
            return answer
        return replace(answer, headers={api.request_id: new_id("req_"), **answer.headers})

    async def _answer_by(self, api: Api, path: str, record: RequestRecord) -> Answer:
        if record.method == "GET" and path in api.models:
            return api.models[path]()
        found = api.find(path)
        if found is None:
            return api.error(404, f"Invalid URL ({record.method} {record.path})")
        if record.method != "POST":
            return api.error(405, f"Not allowed to {record.method} on {record.path}")
        if not isinstance(record.json, dict):
            return api.error(400, "We could not parse the JSON body of your request.")
        try:
            reply = await self._choose(record)
        except Exception:
            # Shown here because the client only gets to see a status.
            logger.exception("the responder failed for %s %s", record.method, record.path)
            return api.error(500, "The responder of the fake provider failed.")
        record.reply = reply
        endpoint, in_path = found
        call = Call(
            payload=record.json,
            reply=reply,
            in_path=in_path,
            stream_type=endpoint.stream_type(record.json, record.query),
        )
        if reply.redirect is not None:
            headers = {"location": reply.redirect}
            return Answer(frames=[b""], status=307, content_type=None, headers=headers)
        if reply.body is not None:
            return verbatim(call)
        if reply.status >= 400:
            return api.error(reply.status, None)
        return replace(endpoint.answer(call), status=reply.status)


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
