"""The text fields of a multipart form, such as the model of a transcription."""

from __future__ import annotations

import re

_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""", re.IGNORECASE)
_NAME = re.compile(rb'name="([^"]{1,64})"')

LONGEST = 1024
"""Bytes of a field's value; anything longer is a file or a prompt."""

MOST = 64
"""Parts that are looked at."""


def form_fields(content: bytes, content_type: str) -> dict[str, str]:
    """The short text fields in what is there of a form; files and all else left out."""
    boundary = _BOUNDARY.search(content_type)
    if boundary is None or not content_type.lower().startswith("multipart/form-data"):
        return {}
    fields = {}
    at = b"--" + (boundary[1] or boundary[2]).encode("latin-1")
    # The last piece is the end, or cut off: only what another boundary follows is whole.
    for part in content.split(at, MOST)[1:-1]:
        head, blank, value = part.partition(b"\r\n\r\n")
        if not blank or b"filename" in head or not value.endswith(b"\r\n"):
            continue
        if (name := _NAME.search(head)) and len(value) <= LONGEST:
            fields[name[1].decode("utf-8", "replace")] = value[:-2].decode("utf-8", "replace")
    return fields
