"""The clients of LLM SDKs that live in this process, and the names that they go by."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from costmw.capture.clients import aiohttp, botocore, httpx, requests
from costmw.capture.clients.sdk import HttpClient, find_http_clients, sdk_of
from costmw.doctor.urls import host_in

HOLDERS = frozenset({"_api_client", "_client", "_client_wrapper", "sdk_configuration"})
"""Attributes that clients of SDKs keep what they send with under, and lazy stand-ins do not."""

SENDING = ("aiohttp.", "httpx.", "httpx2.", "requests.")
"""Modules of clients that speak HTTP, and to anybody."""


@dataclass(frozen=True, slots=True)
class Living:
    """A client: what it sends with, what it is, and where: `at main.client`, if it has a name.

    `by_sdk` says that the SDK made it for itself.
    """

    client: Any
    http: tuple[HttpClient, ...]
    kind: str
    place: str
    by_sdk: bool

    @property
    def label(self) -> str:
        """In words: `openai.AsyncOpenAI at main.client`."""
        return f"{self.kind} {self.place}" if self.place else f"A {self.kind} without a global name"

    @property
    def to_paste(self) -> str:
        """What stands for the client in code."""
        return self.place.rpartition(".")[2] if self.place.startswith("at ") else "client"


def living_clients() -> list[Living]:
    """The clients of SDKs that are alive, one for all that share what they send with.

    Objects are known by their class. No attribute of one that is not a client is asked
    for: it might be a stand-in that makes what it stands for.
    """
    kinds: dict[type, str | None] = {}
    groups: dict[frozenset[int], list[tuple[Any, list[HttpClient]]]] = {}
    for candidate in gc.get_objects():
        cls = type(candidate)
        if cls not in kinds:
            kinds[cls] = _sdk_of(cls)
        if kinds[cls] is None or not _is_holder(candidate):
            continue
        try:
            http = find_http_clients(candidate)
        except Exception:  # noqa: BLE001, S112 - not a client: some part of an SDK
            continue
        groups.setdefault(frozenset(id(one.client) for one in http), []).append((candidate, http))
    if not groups:
        return []
    names = _names_of({id(client) for group in groups.values() for client, _ in group})
    return [_best(group, names, kinds) for group in groups.values()]


def sessions(package: str) -> list[Any]:
    """The clients of `requests` or `aiohttp` that are alive."""
    is_one = {"requests": requests.is_session, "aiohttp": aiohttp.is_session}[package]
    return [
        one for one in gc.get_objects() if _module(type(one)).startswith(SENDING) and is_one(one)
    ]


def importer_of(package: str) -> str | None:
    """A module of the app's own that has a global of a package, or is it; None for none."""
    for module, _, value in _globals(installed=False):
        named = value.__name__ if _is_a(value, ModuleType) else _module(value)
        if isinstance(named, str) and named.partition(".")[0] == package:
            return module
    return None


def host_of(client: Any) -> str:
    """The host that a client sends to, with its port; empty where that is not known."""
    if botocore.is_client(client):
        return host_in(str(client.meta.endpoint_url))
    if httpx.is_client(client):
        return host_in(str(client.base_url))
    return ""


def path_of(client: Any) -> str:
    """The path that a client's requests begin with."""
    return str(client.base_url.path) if httpx.is_client(client) else ""


def _sdk_of(cls: type) -> str | None:
    try:
        return "boto3" if _is_boto(cls) else sdk_of(cls)
    except Exception:  # noqa: BLE001 - a class may hide even its module
        return None


def _is_boto(cls: type) -> bool:
    return any(base.__name__ == "BaseClient" for base in cls.__mro__) and any(
        _module(base) == "botocore.client" for base in cls.__mro__
    )


def _is_holder(candidate: Any) -> bool:
    try:
        held = vars(candidate)
    except TypeError:
        return False
    return "meta" in held if _is_boto(type(candidate)) else not HOLDERS.isdisjoint(held)


def _best(
    group: list[tuple[Any, list[HttpClient]]],
    names: Mapping[int, str],
    kinds: Mapping[type, str | None],
) -> Living:
    """The client itself, of all that lead to the same way of sending."""

    def rank(found: tuple[Any, list[HttpClient]]) -> tuple[bool, bool, int]:
        client, _ = found
        package = sys.modules.get(kinds[type(client)] or "")
        is_public = getattr(package, type(client).__name__, None) is type(client)
        return is_public, id(client) in names, len(vars(client))

    client, http = max(group, key=rank)
    sdk = kinds[type(client)] or ""
    place = next((names[id(one)] for one, _ in [(client, http), *group] if id(one) in names), "")
    service = f" of {client.meta.service_model.service_name}" if sdk == "boto3" else ""
    return Living(
        client=client,
        http=tuple(http),
        kind=f"{sdk} client{service}" if service else f"{sdk}.{type(client).__name__}",
        place=place,
        by_sdk=place.startswith(f"at {sdk}."),
    )


def _names_of(wanted: set[int]) -> dict[int, str]:
    """Where in modules: the objects themselves, or what holds them directly."""
    names: dict[int, str] = {}
    held: dict[int, str] = {}
    for module, name, value in _globals():
        if id(value) in wanted:
            names.setdefault(id(value), f"at {module}.{name}")
        elif not _is_a(value, ModuleType, type, FunctionType):
            # Asks the interpreter, not the object: nothing of the app runs.
            for part in gc.get_referents(value):
                parts = gc.get_referents(part) if type(part) is dict else (part,)
                for one in parts:
                    if id(one) in wanted:
                        held.setdefault(id(one), f"inside of {module}.{name}")
    return {**held, **names}


def _globals(*, installed: bool = True) -> Iterator[tuple[str, str, Any]]:
    """Everything that modules name; the app's own modules before installed ones, if at all."""
    modules = [
        (name, module)
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType)
        and name.partition(".")[0] != "costmw"
        and (installed or not _is_installed(module))
    ]
    modules.sort(key=lambda item: _is_installed(item[1]))
    for name, module in modules:
        for key, value in list(vars(module).items()):
            yield name, key, value


def _is_installed(module: ModuleType) -> bool:
    return "-packages" in str(vars(module).get("__file__"))


def _module(value: Any) -> str:
    """The module that a class or function is from; empty for anything else."""
    module = value.__module__ if _is_a(value, type, FunctionType) else ""
    return module if isinstance(module, str) else ""


def _is_a(value: Any, *kinds: type) -> bool:
    """What `isinstance` says, without asking the object for its class: a stand-in may raise."""
    return issubclass(type(value), kinds)
