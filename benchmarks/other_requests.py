"""A request that is no LLM call, under `instrument_all()`: what asking costs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import httpx
import httpx2
import requests
import yarl
from botocore.awsrequest import AWSPreparedRequest
from botocore.httpsession import URLLib3Session

from benchmarks.measure import compare, main
from costmw import Meter

URL = "https://api.example.com:8443/v1/items/17?full=1"
CALLS = 20_000

Send = Callable[[], object]


def awaited(call: Callable[[], Any]) -> Send:
    """A coroutine function as a plain one: nothing in it waits."""

    def run() -> None:
        try:
            call().send(None)
        except StopIteration:
            return

    return run


def does_nothing(self: object, *request: object, **options: object) -> None:
    """Stands for the library's own method, so that the wrapper alone is timed."""


async def does_nothing_async(self: object, *request: object, **options: object) -> None:
    """Stands for the library's own method, so that the wrapper alone is timed."""


LIBRARIES: dict[str, tuple[type[Any], str, tuple[object, ...]]] = {
    "httpx.Client": (httpx.Client, "send", (httpx.Request("GET", URL),)),
    "httpx.AsyncClient": (httpx.AsyncClient, "send", (httpx.Request("GET", URL),)),
    "httpx2.Client": (httpx2.Client, "send", (httpx2.Request("GET", URL),)),
    "httpx2.AsyncClient": (httpx2.AsyncClient, "send", (httpx2.Request("GET", URL),)),
    "requests.Session": (requests.Session, "send", (requests.Request("GET", URL).prepare(),)),
    "aiohttp.ClientSession, str": (aiohttp.ClientSession, "_request", ("GET", URL)),
    "aiohttp.ClientSession, URL": (aiohttp.ClientSession, "_request", ("GET", yarl.URL(URL))),
    "botocore": (URLLib3Session, "send", (AWSPreparedRequest("GET", URL, {}, b"", False),)),
}


def sends(owner: type[Any], name: str, arguments: tuple[object, ...]) -> Send:
    """A call of the method as it is on the class now, without making a client."""
    method = getattr(owner, name)
    if owner in (httpx.AsyncClient, httpx2.AsyncClient, aiohttp.ClientSession):
        return awaited(lambda: method(None, *arguments))
    return lambda: method(None, *arguments)


def run() -> dict[str, Any]:
    """Time each library's method bare and wrapped; the difference is what a request pays."""
    meter = Meter("sqlite:///unused.db")
    figures: dict[str, Any] = {}
    print("\n  us over bare, and what a call of a method that does nothing takes")
    for label, (owner, name, arguments) in LIBRARIES.items():
        original = getattr(owner, name)
        is_async = owner in (httpx.AsyncClient, httpx2.AsyncClient, aiohttp.ClientSession)
        setattr(owner, name, does_nothing_async if is_async else does_nothing)
        try:
            bare = sends(owner, name, arguments)
            meter.instrument_all()
            wrapped = sends(owner, name, arguments)
            medians = compare({"bare": bare, "wrapped": wrapped}, calls=CALLS)
        finally:
            meter.uninstrument_all()
            setattr(owner, name, original)
        over = medians["wrapped"] - medians["bare"]
        figures[label] = {"us_over_bare": over, **medians}
        print(f"  {label:<32}{over:>8.2f}{medians['bare']:>8.2f}")
    return figures


if __name__ == "__main__":
    main("other_requests", lambda _: run())
