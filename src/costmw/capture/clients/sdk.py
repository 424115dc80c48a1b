"""Where the clients of the SDKs keep the HTTP client that they send with.

Every name here is of a package that is not imported: an object is known by the module
that its class comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from costmw.capture.clients import aiohttp, botocore, httpx, requests
from costmw.capture.clients.base import Capture
from costmw.capture.clients.following import Following
from costmw.errors import ConfigError
from costmw.providers.registry import Api

KNOWN = (
    "the clients of openai, anthropic, google-genai, mistralai, groq, cohere and ollama (sync, "
    "async, Azure, Bedrock, Vertex); boto3 clients of bedrock-runtime and sessions of boto3; "
    "Client and AsyncClient of httpx and httpx2; Session of requests; ClientSession of aiohttp"
)


@dataclass(frozen=True, slots=True)
class HttpClient:
    """A client that sends over HTTP: how to follow it, and what its SDK implies.

    `api` is the wire format, `usual` who bills where the host says nothing.
    """

    client: Any
    instrument: Callable[[Any, Capture], None]
    api: Api = None
    usual: str | None = None


def find_http_clients(target: Any) -> list[HttpClient]:
    """The HTTP clients inside a client of an SDK, or the object itself.

    Raises:
        ConfigError: when it is neither; it lists what is known.
    """
    found = list(_find(target))
    if found:
        return found
    if isinstance(target, type):
        what = f"the class {target.__module__}.{target.__qualname__}; pass an instance"
    else:
        what = f"a {type(target).__module__}.{type(target).__qualname__}"
    raise ConfigError(
        f"cannot instrument {what}. Known are {KNOWN}. meter.instrument_all() follows whatever "
        "sends through one of these libraries"
    )


def sdk_of(cls: type) -> str | None:
    """The package of the SDK that a class comes from, or from whose class it is derived."""
    packages = (_package(base) for base in cls.__mro__ if isinstance(base.__module__, str))
    return next((package for package in packages if package in _SDKS), None)


def captures_of(client: Any) -> list[Capture]:
    """Who records what an HTTP client sends: by `instrument()` first, then by event hooks."""
    sender = client._endpoint.http_session if botocore.is_client(client) else client
    wrapped = [vars(sender).get(name) for name in ("send", "_request", "_get_aiohttp_session")]
    hooks = client.event_hooks.get("request", ()) if httpx.is_client(client) else ()
    marks = [getattr(method, "costmw", None) for method in (*wrapped, *hooks)]
    return [mark.capture for mark in marks if isinstance(mark, Following) and mark.capture]


def _find(target: Any) -> Iterator[HttpClient]:
    if isinstance(target, type):
        return
    if httpx.is_client(target):
        yield HttpClient(target, httpx.instrument_client)
    elif requests.is_session(target):
        yield HttpClient(target, requests.instrument_session)
    elif aiohttp.is_session(target):
        yield HttpClient(target, aiohttp.instrument_session)
    elif botocore.is_session(target):
        yield HttpClient(target, botocore.instrument_session, "bedrock", "aws.bedrock")
    elif botocore.is_client(target):
        yield from _boto_client(target)
    else:
        for cls in type(target).__mro__:
            if find := _SDKS.get(_package(cls)):
                yield from find(target)
                return


def _package(cls: type) -> str:
    """The package that a class comes from; Google's share one top level."""
    top, _, rest = cls.__module__.partition(".")
    return f"{top}.{rest.partition('.')[0]}" if top == "google" else top


def _boto_client(target: Any) -> Iterator[HttpClient]:
    service = target.meta.service_model.service_name
    if service not in botocore.SERVICES:
        raise ConfigError(
            f"cannot instrument a boto3 client of {service}, which bills no tokens; known are "
            f"{' and '.join(botocore.SERVICES)}"
        )
    if botocore.is_async(target):
        raise ConfigError(
            "cannot instrument a client of aiobotocore by itself; meter.instrument_all() follows "
            "the aiohttp below it"
        )
    yield HttpClient(target, botocore.instrument_client, "bedrock", "aws.bedrock")


def _of_httpx(clients: Iterable[Any], api: Api, usual: str | None = None) -> Iterator[HttpClient]:
    for client in clients:
        if httpx.is_client(client):
            yield HttpClient(client, httpx.instrument_client, api, usual)


def _openai(target: Any) -> Iterator[HttpClient]:
    return _of_httpx([getattr(target, "_client", None)], "openai")


_CLAUDE = ("anthropic", "bedrock", "google")
"""What Anthropic's clients speak: their own API, and those of the clouds that have Claude."""


def _anthropic(target: Any) -> Iterator[HttpClient]:
    names = " ".join(cls.__name__ for cls in type(target).__mro__ if _package(cls) == "anthropic")
    usual = None
    if "Bedrock" in names:
        usual = "aws.bedrock"
    elif "Vertex" in names:
        usual = "gcp.vertex_ai"
    return _of_httpx([getattr(target, "_client", None)], _CLAUDE, usual)


def _groq(target: Any) -> Iterator[HttpClient]:
    return _of_httpx([getattr(target, "_client", None)], "openai", "groq")


def _ollama(target: Any) -> Iterator[HttpClient]:
    return _of_httpx([getattr(target, "_client", None)], "ollama", "ollama")


def _mistral(target: Any) -> Iterator[HttpClient]:
    settings = getattr(target, "sdk_configuration", None)
    clients = [getattr(settings, name, None) for name in ("client", "async_client")]
    return _of_httpx(clients, "mistral", "mistral_ai")


def _cohere(target: Any) -> Iterator[HttpClient]:
    wrapper = getattr(target, "_client_wrapper", None)
    inner = getattr(getattr(wrapper, "httpx_client", None), "httpx_client", None)
    return _of_httpx([inner], "cohere", "cohere")


def _google(target: Any) -> Iterator[HttpClient]:
    api_client = getattr(target, "_api_client", None)
    if api_client is None:
        return
    usual = "gcp.vertex_ai" if getattr(api_client, "vertexai", False) else "gcp.gemini"
    names = ("_httpx_client", "_async_httpx_client")
    yield from _of_httpx([getattr(api_client, name, None) for name in names], "google", usual)
    if hasattr(api_client, "_get_aiohttp_session"):
        yield HttpClient(api_client, _instrument_google_sessions, "google", usual)


def _instrument_google_sessions(api_client: Any, capture: Capture) -> None:
    """Follow the sessions of aiohttp that google-genai makes, one for each event loop."""
    present = api_client._get_aiohttp_session
    if isinstance(following := getattr(present, "costmw", None), Following):
        following.capture = capture
        return
    following = Following(capture)

    async def get_session() -> Any:
        session = await present()
        if aiohttp.is_session(session):
            aiohttp.instrument_session(session, following.capture)
        return session

    get_session.costmw = following  # type: ignore[attr-defined]
    api_client._get_aiohttp_session = get_session


_SDKS: dict[str, Callable[[Any], Iterator[HttpClient]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "groq": _groq,
    "ollama": _ollama,
    "mistralai": _mistral,
    "cohere": _cohere,
    "google.genai": _google,
}
