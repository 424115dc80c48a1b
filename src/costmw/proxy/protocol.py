"""HTTP/1.1 for clients that may be slow on purpose: uvicorn's, with an end to waiting."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from costmw.errors import MissingExtra

try:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise MissingExtra(package="uvicorn", extra="proxy") from error

HEAD_SECONDS = 15.0
"""For a client to send a request's head."""

READ_SECONDS = 60.0
"""For a client to go on reading an answer."""

logger = logging.getLogger("costmw.proxy")


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what uvicorn says of answers that are cut on purpose: the reason is told already."""
    cancelled = record.exc_info and record.exc_info[0] is asyncio.CancelledError
    return not cancelled and "without completing response" not in record.getMessage()


logger.addFilter(_is_news)


class GatheringTransport:
    """A transport that sends in one piece what is written in one turn of the event loop.

    A head and the body that is there already are one system call then, and one packet.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send bytes, at the end of this turn."""
        if not data:
            return
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        """Send what was written and close."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._pieces.clear()
        self._transport.abort()

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces and not self._transport.is_closing():
            self._transport.write(b"".join(pieces))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class ProxyProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with an end to waiting for clients that are slow on purpose."""

    head_seconds = HEAD_SECONDS
    read_seconds = READ_SECONDS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = logger
        self.access_log = False  # a query may hold a key
        self._patience: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request, for a while."""
        super().connection_made(GatheringTransport(transport, self.loop))  # type: ignore[arg-type]
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take bytes; wait for the rest of a head, or of a body that nobody wants any more."""
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.IDLE or (state is h11.SEND_BODY and self.conn.our_state is h11.DONE):
            self._wait()
        else:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        """Wait for the rest of the next request, if a part of it is here."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._wait_no_more()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for a client that does not read."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, though the client may not have read what was sent."""
        super().timeout_keep_alive_handler()
        self._wait()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; by the status that the parser proposes, if any."""
        hint = getattr(sys.exc_info()[1], "error_status_hint", 400)
        self._refuse(hint if hint in (400, 413, 414, 431, 501) else 400, msg)

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(self.head_seconds, self._lose_patience)

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        if self.transport.is_closing() or self.conn.our_state is not h11.IDLE:
            self.transport.abort()
        else:
            self._refuse(408, "The request did not come in time.")

    def _refuse(self, status: int, message: str) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        body = message.encode("ascii")
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
