"""The files of the page, under a folder named by what they contain."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from costmw.dashboard.encoding import compressed
from costmw.dashboard.headers import FOREVER, REVALIDATE
from costmw.dashboard.joining import joined
from costmw.dashboard.messages import Response

_SCRIPT = "text/javascript; charset=utf-8"
_STYLE = "text/css; charset=utf-8"

TYPES: Mapping[str, str] = {
    "first.js": _SCRIPT,
    "icon.svg": "image/svg+xml",
    "page.js": _SCRIPT,
    "style.css": _STYLE,
    "vendor/chart.umd.min.js": _SCRIPT,
}
"""The files that are served, and as what; nothing else is."""

MAIN = "main.js"
"""The module that needs all others; together they are page.js."""

STYLES = ("base", "frame", "cards", "tables", "print")
"""The parts of style.css, in their order."""


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
            _compressed(self.contents[name]),
        )


_compressed = functools.cache(compressed)
"""Each file is compressed once, when somebody first asks for it."""


@functools.cache
def load() -> Assets:
    """Read the files, once."""
    contents = {name: _content(name) for name in TYPES}
    page = _read("index.html").encode()
    hashed = hashlib.sha256(page)
    for name, content in contents.items():
        hashed.update(f"\0{name}\0{len(content)}\0".encode() + content)
    digest = hashed.hexdigest()[:16]
    return Assets(page.replace(b"{static}", f"static/{digest}".encode()), contents, digest)


def _content(name: str) -> bytes:
    match name:
        case "page.js":
            return joined(MAIN, _read).encode()
        case "style.css":
            return "".join(_read(f"styles/{part}.css") for part in STYLES).encode()
    return _read(name).encode()


def _read(name: str) -> str:
    return files("costmw.dashboard").joinpath("static", *name.split("/")).read_text("utf-8")
