"""Notices a client that leaves while its request is being answered."""

from __future__ import annotations

import asyncio
from types import TracebackType

from costmw.proxy.bodies import Receive


class ClientWatch:
    """Cancels the task that it is entered in when the client leaves.

    The `with` block then ends at once, without an error, and `left` is True. Enter it once
    the request has been received whole.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._over = False
        self.left = False

    def __enter__(self) -> ClientWatch:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watcher: asyncio.Task[None] | None = None
        return self

    def start(self) -> None:
        """Watch from here on."""
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())

    def expect_no_more(self) -> None:
        """Take it for no leaving that the exchange ends now."""
        self._over = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._over = True
        if self._watcher is not None:
            self._watcher.cancel()
        if not self.left:
            return False
        # Where the server cancels as well, its word goes on.
        others = self._task.uncancel()
        return kind is asyncio.CancelledError and others == 0

    async def _watch(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except Exception:  # noqa: BLE001 - what a server raises when there is nobody any more
            self.left = not self._over
        else:
            self.left = not self._over
        if self.left:
            self._task.cancel()
