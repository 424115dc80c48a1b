"""What a `postgresql://` URL says: where to connect to, and which schema is ours."""

from __future__ import annotations

import re
from dataclasses import dataclass

from costmw.errors import ConfigError

SCHEMA = "costmw"
"""The schema that tables are made in, unless the URL says `?schema=...`."""

_PATIENCE = {
    "application_name": "costmw",
    "connect_timeout": "3",
    # A host that is gone is noticed in seconds, not in the two hours that systems wait.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""Settings of a connection, for what the URL does not say itself."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the ledger is. `shown` is the URL without its secrets, for messages."""

    conninfo: str
    shown: str
    schema: str

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def address_of(url: str) -> Address:
    """Read a URL such as `postgresql://user:password@host:5432/database?schema=costmw`.

    Everything that libpq knows may stand in the query; `schema` is ours.

    Raises:
        ConfigError: when it cannot be read; the message does not repeat it.
    """
    from psycopg import Error
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    base, _, query = url.partition("?")
    options = [option for option in query.split("&") if option]
    schemas = [option.removeprefix("schema=") for option in options if option[:7] == "schema="]
    schema = schemas[-1] if schemas else SCHEMA
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema) or schema.startswith("pg_"):
        raise ConfigError(
            f"schema is {schema!r} in the store's URL; use small letters, digits and _, as in "
            "'?schema=costmw'"
        )
    rest = "&".join(option for option in options if option[:7] != "schema=")
    try:
        said = conninfo_to_dict(f"{base}?{rest}" if rest else base)
        if not re.fullmatch(r"[\d,]*", str(said.get("port", ""))) or "@" in str(said.get("dbname")):
            raise ValueError  # a part of a password that was taken for something else
        conninfo = make_conninfo("", **{**_PATIENCE, **said, "client_encoding": "UTF8"})
    except (Error, ValueError):
        # What libpq says repeats the part that it cannot read, a password perhaps.
        raise ConfigError(
            "store is a postgresql: URL that cannot be read; use "
            "'postgresql://user:password@host:5432/database', with %40 for an @ in the password"
        ) from None
    return Address(conninfo, _shown(said, schema), schema)


def _shown(said: dict[str, str | int | None], schema: str) -> str:
    user = f"{said['user']}@" if said.get("user") else ""
    host = said.get("host") or said.get("hostaddr") or ""
    port = f":{said['port']}" if str(said.get("port", "")).strip(",") else ""
    database = said.get("dbname") or ""
    if str(host).startswith("/"):
        return f"postgresql://{user}/{database}?host={host}&schema={schema}"
    return f"postgresql://{user}{host}{port}/{database}?schema={schema}"
