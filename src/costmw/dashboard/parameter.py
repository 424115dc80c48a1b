"""One parameter of a request: how it is read, and how it is described."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Word = TypeVar("Word", bound=str)


@dataclass(frozen=True, slots=True)
class Parameter(Generic[T]):
    """A parameter: its name, what it does, its JSON schema, and how the texts given are read.

    `read` raises ValueError where the schema does not say it all; the message says what is
    allowed.
    """

    name: str
    about: str
    schema: Mapping[str, Any]
    read: Callable[[Sequence[str]], T]
    allowed: str
    is_needed: bool = False


def choice(name: str, words: Sequence[Word], default: Word, about: str) -> Parameter[Word]:
    """One of some words."""

    def read(texts: Sequence[str]) -> Word:
        if not texts:
            return default
        for word in words:
            if word == texts[-1]:
                return word
        raise ValueError(texts[-1])

    schema = {"type": "string", "enum": list(words), "default": default}
    return Parameter(name, about, schema, read, f"one of {', '.join(words)}")


def whole(name: str, least: int, most: int, default: int, about: str) -> Parameter[int]:
    """A whole number."""

    def read(texts: Sequence[str]) -> int:
        if not texts:
            return default
        text = texts[-1]
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    schema = {"type": "integer", "minimum": least, "maximum": most, "default": default}
    return Parameter(name, about, schema, read, f"a whole number from {least} to {most}")


def text_like(
    name: str,
    pattern: str,
    about: str,
    allowed: str,
    read: Callable[[str], T],
    default: T,
    schema: Mapping[str, Any] = MappingProxyType({}),
) -> Parameter[T]:
    """A text that matches a pattern, and what `read` makes of it."""

    def read_last(texts: Sequence[str]) -> T:
        if not texts:
            return default
        if not re.fullmatch(pattern, texts[-1]):
            raise ValueError(texts[-1])
        return read(texts[-1])

    told = {"type": "string", "pattern": f"^{pattern}$", **schema}
    return Parameter(name, about, told, read_last, allowed)
