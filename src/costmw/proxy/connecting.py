"""Connecting to a host by whichever of its addresses answers first (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

STAGGER = 0.25
"""Seconds after which the next address of a host is tried beside those before."""


async def first_connected(addresses: list[Any]) -> socket.socket:
    """A socket that is connected to the first address that answers.

    asyncio can do this too, and loses a socket where it is cancelled meanwhile.
    """
    attempts: list[asyncio.Task[socket.socket]] = []
    winner = None
    left = list(addresses)
    try:
        while winner is None:
            if left:
                attempts.append(asyncio.create_task(_connected(left.pop(0))))
            running = [attempt for attempt in attempts if not attempt.done()]
            if running:
                await asyncio.wait(
                    running,
                    timeout=STAGGER if left else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            ended = [attempt for attempt in attempts if attempt.done()]
            winner = next((one for one in ended if one.exception() is None), None)
            if winner is None and not left and len(ended) == len(attempts):
                break
        return (winner or attempts[0]).result()
    finally:
        for attempt in attempts:
            if not attempt.done():
                attempt.cancel()
            elif attempt is not winner and attempt.exception() is None:
                attempt.result().close()


async def _connected(address: Any) -> socket.socket:
    family, kind, protocol, _, where = address
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, where)
    except BaseException:
        connection.close()
        raise
    return connection
