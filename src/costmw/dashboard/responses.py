"""Answers as responses: JSON that knows whether it is new, and CSV to download."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from costmw.dashboard import assets
from costmw.dashboard.encoding import compressed
from costmw.dashboard.headers import REVALIDATE
from costmw.dashboard.messages import Request, Response

JSON = "application/json"
CSV = "text/csv; charset=utf-8"

_WHEN_MADE = {"generated_at"}
"""What says when an answer was made, and nothing of what it says."""

Row = Sequence[str | int | float | None]


@dataclass(frozen=True, slots=True)
class Told:
    """An answer as it is sent to whoever asks for it: the same bytes for all."""

    body: bytes
    gzipped: bytes
    etag: str

    @classmethod
    def of(cls, answer: BaseModel) -> Told:
        """Write an answer down."""
        body = answer.model_dump_json().encode()
        if _WHEN_MADE & set(type(answer).model_fields):
            return cls.written(body, answer.model_dump_json(exclude=_WHEN_MADE).encode())
        return cls.written(body, body)

    @classmethod
    def written(cls, body: bytes, said: bytes) -> Told:
        """What is written already; it is new when what it has `said` is another."""
        digest = hashlib.sha256(assets.load().digest.encode() + said).hexdigest()[:32]
        # Weak: it is the same whether compressed or not.
        return cls(body, compressed(body), f'W/"{digest}"')

    def response(self, request: Request) -> Response:
        """The answer, or 304 when the client has it."""
        headers = {"ETag": self.etag, "Cache-Control": REVALIDATE, "Vary": "Accept-Encoding"}
        if self.etag in _etags(request.headers.get("if-none-match", "")):
            return Response(304, headers)
        return Response(200, {**headers, "Content-Type": JSON}, self.body, self.gzipped)


def _etags(header: str) -> set[str]:
    return {part.strip() for part in header.split(",")}


def json_response(answer: BaseModel) -> Response:
    """An answer that nobody else is told."""
    headers = {"Content-Type": JSON, "Cache-Control": REVALIDATE}
    return Response(200, headers, answer.model_dump_json().encode())


def csv_response(name: str, head: Sequence[str], rows: Iterable[Row]) -> Response:
    """A table to download as `name`.csv; the texts of its cells are harmless to spreadsheets."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(rows)
    headers: Mapping[str, str] = {
        "Content-Type": CSV,
        "Content-Disposition": f'attachment; filename="{name}.csv"',
    }
    return Response(200, headers, text.getvalue().encode())
