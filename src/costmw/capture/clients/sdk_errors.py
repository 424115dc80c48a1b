"""A refusal in the class of the SDK that asked, which its users catch, and it does not retry.

The SDK is known by what it says of itself in its request, and its base error is looked up
among the modules that are loaded: none is imported. Clients that are used without an SDK
get `BudgetExceeded` as it is; the base errors of their libraries stand for connections
that failed, which apps try again.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from costmw.errors import BudgetExceeded

STATUS = 402
"""What HTTP calls "Payment Required": the status that errors of SDKs have."""


@dataclass(frozen=True, slots=True)
class Sdk:
    """An SDK: what its User-Agent matches, and where its base error is.

    `errors` are modules and names of classes, of which the first that is there counts.
    `attributes` is what such an error has, beside its text.
    """

    name: str
    agent: re.Pattern[str]
    errors: tuple[tuple[str, str], ...]
    attributes: Callable[[BudgetExceeded], Mapping[str, Any]] = lambda refusal: {}

    def base(self) -> type[Exception] | None:
        """Its base error; None where it is not loaded, or has none of this name."""
        for module, name in self.errors:
            found = getattr(sys.modules.get(module), name, None)
            if isinstance(found, type) and issubclass(found, Exception):
                return found
        return None


def _boto_attributes(refusal: BudgetExceeded) -> Mapping[str, Any]:
    error = {"Code": "BudgetExceeded", "Message": refusal.reason}
    about = {"HTTPStatusCode": STATUS, "HTTPHeaders": {}, "RetryAttempts": 0}
    return {"response": {"Error": error, "ResponseMetadata": about}, "operation_name": ""}


def _google_attributes(refusal: BudgetExceeded) -> Mapping[str, Any]:
    error = {"code": STATUS, "message": refusal.reason, "status": "RESOURCE_EXHAUSTED"}
    return {**error, "details": {"error": error}, "response": None}


_OPENAI = Sdk("openai", re.compile(r"openai/python"), (("openai", "OpenAIError"),))
_ANTHROPIC = Sdk(
    "anthropic", re.compile(r"anthropic\w*/python"), (("anthropic", "AnthropicError"),)
)
_GROQ = Sdk("groq", re.compile(r"groq/python"), (("groq", "GroqError"),))

_SDKS = (
    _OPENAI,
    _ANTHROPIC,
    _GROQ,
    Sdk(
        "google-genai",
        re.compile(r"google-genai-sdk/"),
        (("google.genai.errors", "APIError"),),
        _google_attributes,
    ),
    Sdk(
        "mistralai",
        re.compile(r"mistral-client-python/|speakeasy-sdk/python.* mistralai$"),
        (
            ("mistralai.client.errors", "MistralError"),
            ("mistralai.models", "MistralError"),
            ("mistralai.models", "SDKError"),
        ),
        lambda refusal: {
            "message": refusal.reason,
            "status_code": STATUS,
            "body": refusal.reason,
            "headers": {},
            "raw_response": None,
        },
    ),
    Sdk(
        "cohere",
        re.compile(r"cohere/"),
        (("cohere.core.api_error", "ApiError"), ("cohere.core", "ApiError")),
        lambda refusal: {"headers": {}, "status_code": STATUS, "body": refusal.reason},
    ),
    Sdk(
        "ollama",
        re.compile(r"ollama-python/"),
        (("ollama", "ResponseError"),),
        lambda refusal: {"error": refusal.reason, "status_code": STATUS},
    ),
    Sdk(
        "boto3",
        re.compile(r"(boto3|botocore|aiobotocore)/"),
        (("botocore.exceptions", "ClientError"),),
        _boto_attributes,
    ),
)

_BY_NAME = {sdk.name: sdk for sdk in _SDKS}


def is_stainless(headers: Mapping[str, str]) -> bool:
    """Whether the SDK is one of the many that Stainless generates."""
    return "x-stainless-lang" in headers


def sdk_error(refusal: BudgetExceeded, headers: Mapping[str, str], api: str) -> BudgetExceeded:
    """The refusal as an error of the SDK that sends a request; itself where there is none.

    Args:
        refusal: the refusal.
        headers: of the request, their names in lower case.
        api: the wire format of the request.
    """
    sdk = _sdk_of(headers, api)
    return refusal if sdk is None else _as_error_of(sdk, refusal)


def _sdk_of(headers: Mapping[str, str], api: str) -> Sdk | None:
    agent = headers.get("user-agent", "").lower()
    for sdk in _SDKS:
        if sdk.agent.search(agent):
            return sdk
    if not is_stainless(headers) or "/python" in agent:
        return None
    # A framework that sends under its own name, through the SDK of the wire format.
    return _ANTHROPIC if api.startswith("anthropic.") else _OPENAI


def _as_error_of(sdk: Sdk, refusal: BudgetExceeded) -> BudgetExceeded:
    base = sdk.base()
    if base is None:
        return refusal
    cls = _error_class(base)
    error = cls.__new__(cls, refusal.reason)
    error.__dict__.update(vars(refusal), **sdk.attributes(refusal), _sdk=sdk.name)
    return error


_error_classes: dict[type[Exception], type[BudgetExceeded]] = {}


def _error_class(base: type[Exception]) -> type[BudgetExceeded]:
    if base not in _error_classes:
        about = {"__doc__": BudgetExceeded.__doc__, "__module__": BudgetExceeded.__module__}
        _error_classes[base] = type(BudgetExceeded.__name__, (_SdkError, base), about)
    return _error_classes[base]


class _SdkError(BudgetExceeded):
    """A refusal still, whatever the SDK's error makes of these methods."""

    _sdk: str

    def __str__(self) -> str:
        return self.reason

    __repr__ = Exception.__repr__
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return _unfilled, (self._sdk, self.reason), self.__dict__


def _unfilled(sdk_name: str, reason: str) -> BudgetExceeded:
    """What unpickling begins with: a plain refusal in a process that has not loaded the SDK."""
    base = _BY_NAME[sdk_name].base()
    cls = BudgetExceeded if base is None else _error_class(base)
    return cls.__new__(cls, reason)
