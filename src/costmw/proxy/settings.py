"""The proxy's settings: one frozen object, from code or from a TOML file."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from costmw.errors import ConfigError
from costmw.proxy.upstreams import BUILT_IN, Upstream, completed

TAGS_HEADER = "x-llm-tags"

SHORTEST_TOKEN = 16
"""Characters that a token must have at least."""

_HEADER = re.compile(r"[-!#$%&'*+.^_`|~0-9a-z]+")


@dataclass(frozen=True, slots=True)
class Token:
    """What a client shows the proxy instead of a provider's key.

    secret: at least 16 characters. tags: of every call made with it; no header changes them.
    """

    secret: str = field(repr=False)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """How the proxy works; the defaults are right for one machine's own clients.

    Times are in seconds, sizes in bytes.

    upstreams: by the name that their paths start with; they are added to the built-in
        ones, and what is left out of one of the same name is taken from there.
    built_in: False for no upstreams but those named.
    tokens: what clients must show; then only upstreams with a key of their own are served.
    accept_tags_header: take tags from the header `X-LLM-Tags`, a JSON object.
    tag_headers: headers that are tags, as in `{"x-tenant": "tenant"}`.
    include_usage: ask chat streams for usage, which they leave out otherwise.
    explain_refusals: tell clients whose call does not fit a budget which one, and amounts.
    connect_timeout: to reach an upstream.
    read_timeout: between two pieces of an answer, and before the first.
    write_timeout: until an upstream takes a piece of a request.
    body_timeout: for a client to send its body, and a second more for every KiB of it.
    read_limit: a body up to here is read, for its model and to ask for its usage; a larger
        one is passed on piece by piece, and known by its first part and its answer alone.
    buffer_limit: bodies held for reading at one time, of all requests; then none is read.
    max_request_bytes: larger bodies are refused; None for no limit.
    max_concurrent: requests at one time; more are refused.
    """

    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    built_in: bool = True
    tokens: Sequence[Token] = ()
    accept_tags_header: bool = False
    tag_headers: Mapping[str, str] = field(default_factory=dict)
    include_usage: bool = True
    explain_refusals: bool = False
    connect_timeout: float = 10.0
    read_timeout: float = 600.0
    write_timeout: float = 60.0
    body_timeout: float = 30.0
    read_limit: int = 8 * 1024 * 1024
    buffer_limit: int = 256 * 1024 * 1024
    max_request_bytes: int | None = None
    max_concurrent: int = 500

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is None and name == "max_request_bytes":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{name} is {value!r}; it must be a number above 0")
        for name in ("built_in", "accept_tags_header", "include_usage", "explain_refusals"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false")
        upstreams = {
            name: completed(name, upstream)
            for name, upstream in {**(BUILT_IN if self.built_in else {}), **self.upstreams}.items()
        }
        if not upstreams:
            raise ConfigError("no upstreams: name one, or leave the built-in ones in")
        tag_headers = {name.lower(): tag for name, tag in self.tag_headers.items()}
        for header, tag in tag_headers.items():
            if not _HEADER.fullmatch(header) or not isinstance(tag, str) or not tag:
                raise ConfigError(f"tag_headers: {header!r} must name a header, and its tag")
            if header in _NOT_TAGS:
                raise ConfigError(f"tag_headers: {header!r} is needed for something else")
        for token in self.tokens:
            if len(token.secret) < SHORTEST_TOKEN or not token.secret.isascii():
                raise ConfigError(f"a token must have at least {SHORTEST_TOKEN} ASCII characters")
        # Frozen: the one place where what was given is put in its final form.
        object.__setattr__(self, "upstreams", MappingProxyType(upstreams))
        object.__setattr__(self, "tag_headers", MappingProxyType(tag_headers))
        object.__setattr__(self, "tokens", tuple(self.tokens))

    @classmethod
    def from_file(
        cls, path: Path | str, environ: Mapping[str, str] | None = None, **settings: Any
    ) -> ProxyConfig:
        """Read a TOML file; `settings` win over what it says. Secrets come from `environ`.

        Raises:
            ConfigError: naming the file, the setting and what is wrong with it.
        """
        environ = os.environ if environ is None else environ
        try:
            read = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from None
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None
        try:
            _known("", read, {one.name for one in fields(cls)})
            if "upstreams" in read:
                read["upstreams"] = {
                    name: _upstream(name, table, environ)
                    for name, table in _table("upstreams", read["upstreams"]).items()
                }
            if "tokens" in read:
                read["tokens"] = _tokens(read["tokens"], environ)
            if "tag_headers" in read:
                _table("tag_headers", read["tag_headers"])
            tokens = (*read.pop("tokens", ()), *settings.pop("tokens", ()))
            return cls(**{**read, **settings}, tokens=tokens)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None


def settings_of_command(file: str, *, tags_header: bool, token_env: Sequence[str]) -> ProxyConfig:
    """The settings of `costmw proxy`: its file, if any, and what was said beside it.

    Raises:
        ConfigError: saying what to change.
    """
    said: dict[str, Any] = {"accept_tags_header": True} if tags_header else {}
    said["tokens"] = [
        Token(secret_from(variable, "--token-env", os.environ)) for variable in token_env
    ]
    return ProxyConfig.from_file(file, **said) if file else ProxyConfig(**said)


_NUMBERS = (
    "connect_timeout",
    "read_timeout",
    "write_timeout",
    "body_timeout",
    "read_limit",
    "buffer_limit",
    "max_request_bytes",
    "max_concurrent",
)

_NOT_TAGS = {
    "accept-encoding",
    "api-key",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "x-api-key",
    "x-goog-api-key",
    TAGS_HEADER,
}


def secret_from(variable: object, where: str, environ: Mapping[str, str]) -> str:
    """The secret in an environment variable.

    Raises:
        ConfigError: when it is not set.
    """
    if not isinstance(variable, str) or not variable:
        raise ConfigError(f"{where}: name an environment variable")
    if not (secret := environ.get(variable, "").strip()):
        raise ConfigError(f"{where}: the environment variable {variable} is not set")
    return secret


def _upstream(name: str, value: object, environ: Mapping[str, str]) -> Upstream:
    where = f"upstreams.{name}"
    table = _table(where, value)
    if "key" in table:
        raise ConfigError(f"{where}: put the key in the environment, and its name in key_env")
    _known(where, table, {"base_url", "provider", "api", "key_env"})
    for setting, text in table.items():
        if not isinstance(text, str):
            raise ConfigError(f"{where}: {setting} must be text")
    key = secret_from(table["key_env"], where, environ) if "key_env" in table else None
    return Upstream(table.get("base_url", ""), table.get("provider"), table.get("api"), key)


def _tokens(value: object, environ: Mapping[str, str]) -> list[Token]:
    if not isinstance(value, list):
        raise ConfigError("tokens: write each as a table, [[tokens]]")
    found = []
    for number, one in enumerate(value, 1):
        where = f"tokens, number {number}"
        table = _table(where, one)
        if "secret" in table:
            raise ConfigError(f"{where}: put the token in the environment, and its name in env")
        _known(where, table, {"env", "tags"})
        tags = _table(f"{where}, tags", table.get("tags", {}))
        if not all(isinstance(text, str) for text in tags.values()):
            raise ConfigError(f"{where}: tags must be text")
        found.append(Token(secret_from(table.get("env"), where, environ), tags))
    return found


def _table(where: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table")
    return value


def _known(where: str, table: Mapping[str, object], names: set[str]) -> None:
    for name in table:
        if name not in names:
            before = f"{where}: " if where else ""
            raise ConfigError(f"{before}{name} is not known; use {', '.join(sorted(names))}")
