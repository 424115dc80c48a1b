"""Elements of HTML and SVG; whatever is not an element already is text, and escaped."""

from __future__ import annotations

import html
import re

# What HTML may not hold at all, and marks that would turn the text around them.
_STRANGE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class Markup(str):
    """Text that is markup, with everything in it escaped that had to be."""

    __slots__ = ()


def printable(text: str) -> str:
    """Text with a mark in the place of what cannot be shown, or would hide the rest."""
    return _STRANGE.sub("\ufffd", text)


def element(name: str, *children: str, **attributes: str | float) -> Markup:
    """An element; an underscore at the end of an attribute's name is left out (`class_`)."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(str(value)))}"'
        for key, value in attributes.items()
    )
    inner = "".join(_escaped(child) for child in children)
    return Markup(f"<{name}{said}>{inner}</{name}>")


def _escaped(child: str) -> str:
    return child if isinstance(child, Markup) else html.escape(printable(child))
