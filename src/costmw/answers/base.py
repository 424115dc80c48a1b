"""What all answers have in common."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer, WithJsonSchema

Usd = Annotated[
    Decimal,
    PlainSerializer(lambda usd: format(usd, "f"), when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$", "examples": ["12.50"]}),
]
"""US dollars; a plain decimal string in JSON, never a float."""


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, defer_build=True)
