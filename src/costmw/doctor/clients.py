"""LLM clients of the process: who follows them, and who does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from costmw.capture.clients.base import Capture
from costmw.capture.clients.process import follows_all
from costmw.capture.clients.sdk import HttpClient, captures_of
from costmw.config import Config
from costmw.doctor.case import Case
from costmw.doctor.finding import Finding
from costmw.doctor.living import Living, host_of, importer_of, path_of, sessions
from costmw.doctor.urls import told
from costmw.providers.known import PROVIDERS
from costmw.providers.registry import provider_of_host

FOLLOW_ALL = "meter.instrument_all(), once at the start, follows every client there is"


def check_clients(case: Case) -> Iterator[Finding]:
    """Every client of an LLM SDK: followed, by one meter, with a provider that is known."""
    if not case.in_process or (case.meters and not case.metering):
        return
    everywhere = follows_all()
    if case.metering and everywhere is None and not case.clients:
        yield Finding(
            "info",
            "no-clients",
            "No client of an LLM SDK lives in this process yet: those that the app makes when it "
            "starts, or in a request, were not looked at.",
            f"Look from inside of the running app: costmw.doctor.examine(meter, app). Or "
            f"{FOLLOW_ALL}.",
        )
    for client in case.clients:
        lost = [http for http in used(client) if not captures(http, everywhere)]
        if not lost:
            yield from _two_meters(client, everywhere)
            yield from _unknown_host(client, everywhere)
            if address := _proxy_address(client):
                yield Finding(
                    "info",
                    "through-a-proxy",
                    f"{client.label} sends to {address}, as clients of `costmw proxy` do. If it "
                    "is one, a call is counted here and there.",
                    "Leave the counting to one of them: do not instrument this client, or give "
                    "it the provider's own address. See counted-twice.",
                )
        elif address := _proxy_address(client):
            yield Finding(
                "info",
                "through-a-proxy",
                f"{client.label} is followed by no meter here, and sends to {address}, as clients "
                "of `costmw proxy` do: its calls are counted there, if it is one.",
                f"If it is another gateway: meter.instrument({client.to_paste}, "
                "provider=PROVIDER). PROVIDER is who bills.",
            )
        elif any(_followers(http, everywhere) for http in lost):
            yield _not_watched(client, lost)
        elif _is_aiohttp_of_google(client, lost):
            yield Finding(
                "error",
                "aiohttp-under-google-genai",
                f"The async calls of {client.label} go through aiohttp, since it is installed, "
                "and only its httpx client is followed: they are not recorded.",
                f"meter.instrument({client.to_paste}) follows both; so does instrument_all(). Or "
                "give HttpOptions(httpx_async_client=...) a client with hooks.",
            )
        elif client.by_sdk:
            yield Finding(
                "info",
                "client-of-the-sdk",
                f"{client.label} is what the functions of {client.kind.partition('.')[0]} itself "
                "use, and no meter follows it. That matters only if you call them.",
                f"{FOLLOW_ALL}.",
            )
        else:
            half = len(lost) < len(used(client))
            yield Finding(
                "error",
                "client-not-instrumented",
                f"{client.label} is followed by no meter{' in its other half' if half else ''}: "
                f"what it is asked{' there' if half else ''} is not recorded.",
                f"meter.instrument({client.to_paste}), where it is made. Or {FOLLOW_ALL}.",
            )


def check_libraries(case: Case) -> Iterator[Finding]:
    """HTTP libraries without an SDK above them, of which nothing is followed."""
    if not case.in_process or not case.metering or follows_all() is not None:
        return
    for package in ("requests", "aiohttp"):
        module = importer_of(package)
        if module and not any(captures_of(session) for session in sessions(package)):
            yield Finding(
                "info",
                "library-not-followed",
                f"{module} imports {package}, and no session of it is followed. That matters only "
                "if LLM calls go through it.",
                f"meter.instrument(session). Or {FOLLOW_ALL}.",
            )
    module = importer_of("boto3")
    if module and not any(one.kind.startswith("boto3") for one in case.clients):
        yield Finding(
            "info",
            "library-not-followed",
            f"{module} imports boto3, and there is no client of Bedrock yet. One that is made "
            "later is followed only if its session is.",
            f"meter.instrument(boto3_session), before it makes clients. Or {FOLLOW_ALL}.",
        )


def used(client: Living) -> list[HttpClient]:
    """What a client sends with: google-genai has two async ways, and uses one."""
    maker = next((one for one in client.http if hasattr(one.client, "_get_aiohttp_session")), None)
    if maker is None:
        return list(client.http)
    by_aiohttp = maker.client._use_aiohttp()
    inner = getattr(maker.client, "_async_httpx_client", None)
    unused = inner if by_aiohttp else maker.client
    return [one for one in client.http if one.client is not unused]


def _followers(http: HttpClient, everywhere: Capture | None) -> list[Capture]:
    """Who looks at what it sends: its own meters first, then that of the process."""
    found = captures_of(http.client)
    options = getattr(http.client, "_http_options", None)
    if (session := getattr(options, "aiohttp_client", None)) is not None:
        found += captures_of(session)
    return [*found, everywhere] if everywhere is not None else found


def captures(http: HttpClient, everywhere: Capture | None) -> list[Capture]:
    """Who records what it sends: those who look, and know the host."""
    host = host_of(http.client)
    return [one for one in _followers(http, everywhere) if not host or one.watches(host)]


def _is_aiohttp_of_google(client: Living, lost: Sequence[HttpClient]) -> bool:
    return len(lost) < len(used(client)) and all(
        hasattr(one.client, "_get_aiohttp_session") for one in lost
    )


def _not_watched(client: Living, lost: Sequence[HttpClient]) -> Finding:
    host = host_of(lost[0].client)
    return Finding(
        "error",
        "host-unknown",
        f"{client.label} sends to {host}, which is no provider's host: instrument_all() and "
        "event_hooks() leave its calls alone, and they are not recorded.",
        f"COSTMW_HOSTS={host}=PROVIDER, or Config(hosts={{{host!r}: PROVIDER}}); or "
        f"meter.instrument({client.to_paste}, provider=PROVIDER). PROVIDER is who bills.",
    )


def _two_meters(client: Living, everywhere: Capture | None) -> Iterator[Finding]:
    for http in used(client):
        first, *others = captures(http, everywhere)
        other = next((one for one in others if one.meter is not first.meter), None)
        if other is not None:
            yield Finding(
                "warning",
                "instrumented-twice",
                f"Two meters follow {client.label}. A call is one row, of the client's own meter "
                f"({told(first.meter.store.url)}); the other "
                f"({told(other.meter.store.url)}) sees nothing of it.",
                "Use one meter: instrument(client) beside instrument_all() of the same meter "
                "counts once.",
            )
            return


def _unknown_host(client: Living, everywhere: Capture | None) -> Iterator[Finding]:
    for http in used(client):
        capture, host = captures(http, everywhere)[0], host_of(http.client)
        hosts = capture.meter.config.hosts
        known = capture.provider or capture.usual or provider_of_host(host, hosts)
        if host and known is None:
            config: Config = capture.meter.config
            priced = bool(config.prices or config.price_file)
            yield Finding(
                "info" if priced else "warning",
                "host-unknown",
                f"{client.label} sends to {host}, which is no provider's host: its calls are "
                f"recorded, without a cost{' but that of your own prices' if priced else ''}.",
                f"meter.instrument({client.to_paste}, provider=PROVIDER), or "
                f"COSTMW_HOSTS={host}=PROVIDER. PROVIDER is who bills, as 'openai'.",
            )
            return


def _proxy_address(client: Living) -> str | None:
    """Where a client sends to, if that looks like an upstream of `costmw proxy`."""
    names = {provider.price_id for provider in PROVIDERS}
    for http in used(client):
        first = path_of(http.client).strip("/").partition("/")[0]
        host = host_of(http.client)
        if first in names and host and provider_of_host(host, {}) is None:
            return f"{host}/{first}"
    return None
