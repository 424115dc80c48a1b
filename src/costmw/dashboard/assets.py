"""The files of the page, under a folder named by what they contain."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from costmw.dashboard.headers import FOREVER, REVALIDATE
from costmw.dashboard.messages import Response

_SCRIPT = "text/javascript; charset=utf-8"

TYPES: Mapping[str, str] = {
    "icon.svg": "image/svg+xml",
    "style.css": "text/css; charset=utf-8",
    "vendor/chart.umd.min.js": _SCRIPT,
    **dict.fromkeys(
        (
            "api.js",
            "charts.js",
            "dom.js",
            "format.js",
            "main.js",
            "money.js",
            "poll.js",
            "tables.js",
            "theme.js",
            "views/breakdown.js",
            "views/budgets.js",
            "views/calls.js",
            "views/detail.js",
            "views/header.js",
            "views/kpis.js",
            "views/notices.js",
            "views/outcomes.js",
            "views/recording.js",
            "views/tokens.js",
            "views/trend.js",
            "views/unitcosts.js",
        ),
        _SCRIPT,
    ),
}
"""The files that are served, and as what; nothing else is."""


@dataclass(frozen=True, slots=True)
class Assets:
    """The page and its files; `digest` changes when any of them does."""

    page: bytes
    contents: Mapping[str, bytes]
    digest: str

    def page_response(self) -> Response:
        """The page itself, asked for anew every time."""
        return Response(
            200,
            {"Content-Type": "text/html; charset=utf-8", "Cache-Control": REVALIDATE},
            self.page,
        )

    def response(self, digest: str, name: str) -> Response | None:
        """One file, kept by browsers forever; None when there is no such file or version."""
        if digest != self.digest or name not in self.contents:
            return None
        return Response(
            200,
            {"Content-Type": TYPES[name], "Cache-Control": FOREVER},
            self.contents[name],
        )


@functools.cache
def load() -> Assets:
    """Read the files, once."""
    folder = files("costmw.dashboard") / "static"
    contents = {name: folder.joinpath(*name.split("/")).read_bytes() for name in sorted(TYPES)}
    page = (folder / "index.html").read_bytes()
    hashed = hashlib.sha256(page)
    for name, content in contents.items():
        hashed.update(f"\0{name}\0{len(content)}\0".encode() + content)
    digest = hashed.hexdigest()[:16]
    return Assets(page.replace(b"{static}", f"static/{digest}".encode()), contents, digest)
