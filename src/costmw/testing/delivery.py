"""Deliver an answer as its reply asks: late, paced, encoded, cut up or cut off."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from costmw.testing.encoding import encoder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from costmw.testing.encoding import Encoder
    from costmw.testing.reply import Reply, RequestRecord
    from costmw.testing.wire import Answer

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]


class Delivery:
    """Sends one answer, and notes in the request's record how that went.

    Notes are made before the bytes they are about go out, so that a client that has a
    response in hand finds it noted.
    """

    def __init__(
        self,
        *,
        reply: Reply,
        record: RequestRecord,
        send: Send,
        gone: asyncio.Event,
        on_whole: Callable[[], None],
        on_cut_short: Callable[[], None],
    ) -> None:
        """`gone` is set when the client leaves; `on_cut_short` takes back an `on_whole`."""
        self._reply = reply
        self._record = record
        self._send = send
        self._gone = gone
        self._on_whole = on_whole
        self._on_cut_short = on_cut_short
        self._pending = bytearray()
        self._made = 0
        self._sent = 0
        self._event_ends: deque[int] = deque()

    async def run(self, answer: Answer) -> None:
        """Deliver; returns when the response is sent, cut off, or the client has left."""
        try:
            await self._run(answer)
        except OSError:
            # Servers may say in this way that the client is gone; uvicorn just drops sends.
            self._gone.set()
        if self._gone.is_set() and not self._record.completed:
            self._record.disconnected = True

    async def _run(self, answer: Answer) -> None:
        if await self._left_within(self._reply.delay):
            return
        coder = encoder(self._reply.encoding)
        if answer.streamed or self._reply.chunk_bytes is not None:
            await self._send_stream(answer, coder)
        else:
            await self._send_plain(answer, coder)

    async def _send_stream(self, answer: Answer, coder: Encoder) -> None:
        frames, cut = answer.frames, self._cut_at(answer)
        await self._start(answer, None)
        for position, frame in enumerate(frames if cut is None else frames[:cut]):
            if position and not (await self._send_due() and await self._paced()):
                return
            self._add(coder.add(frame))
        if cut is not None:
            if await self._send_chunks() and self._pending:
                await self._send_piece(len(self._pending))
            return
        self._pending += coder.end()
        if await self._send_chunks():
            await self._finish()

    async def _send_plain(self, answer: Answer, coder: Encoder) -> None:
        body = coder.add(answer.frames[0]) + coder.end()
        await self._start(answer, len(body))
        if self._cut_at(answer) is None:
            self._add(body)
            await self._finish()

    async def _start(self, answer: Answer, length: int | None) -> None:
        headers = dict(answer.headers)
        if answer.content_type is not None:
            headers["content-type"] = answer.content_type
        if length is not None:
            headers["content-length"] = str(length)
        if self._reply.encoding is not None:
            headers["content-encoding"] = self._reply.encoding
        headers |= {name.lower(): value for name, value in self._reply.headers.items()}
        await self._send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers.items()],
            }
        )

    def _add(self, data: bytes) -> None:
        self._pending += data
        self._made += len(data)
        self._event_ends.append(self._made)

    def _cut_at(self, answer: Answer) -> int | None:
        """Return the number of events after which to cut, None if that is never reached."""
        after = self._reply.abort_after
        reach = len(answer.frames) if answer.streamed else 0
        return after if after is not None and after <= reach else None

    async def _paced(self) -> bool:
        """Wait for the time of the next event; say whether the client is still there."""
        return self._reply.pace == 0 or not await self._left_within(self._reply.pace)

    async def _send_due(self) -> bool:
        """Send what is to be sent before the next event is made.

        Bytes too few for a chunk wait for more, unless there is a pause ahead.
        """
        if not await self._send_chunks():
            return False
        if self._reply.chunk_bytes is not None and self._reply.pace == 0:
            return True
        return await self._send_piece(len(self._pending))

    async def _send_chunks(self) -> bool:
        """Send full chunks; keep at least a byte, as the last piece ends the body."""
        size = self._reply.chunk_bytes
        while size is not None and len(self._pending) > size:
            if not await self._send_piece(size):
                return False
        return True

    async def _send_piece(self, size: int) -> bool:
        piece = self._take(size)
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        # A send may not yield to the loop at all, and a leaving client is noticed only there.
        return not await self._left_within(0)

    async def _finish(self) -> None:
        # An empty piece waits until the socket has room: only then is the last one as good
        # as delivered.
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})
        if await self._left_within(0):
            return
        piece = self._take(len(self._pending))
        self._record.completed = True
        self._on_whole()
        try:
            await self._send({"type": "http.response.body", "body": piece, "more_body": False})
        except OSError:
            self._record.completed = False
            self._on_cut_short()
            raise

    def _take(self, size: int) -> bytes:
        piece = bytes(self._pending[:size])
        del self._pending[:size]
        self._sent += len(piece)
        while self._event_ends and self._event_ends[0] <= self._sent:
            self._event_ends.popleft()
            self._record.sent_events += 1
        return piece

    async def _left_within(self, seconds: float) -> bool:
        """Wait that long, or until the client leaves; say whether it did."""
        if seconds <= 0:
            await asyncio.sleep(0)
        else:
            try:
                async with asyncio.timeout(seconds):
                    await self._gone.wait()
            except TimeoutError:
                return False
        return self._gone.is_set()
