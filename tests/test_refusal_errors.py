"""The error that a refusal is: plain, or of an SDK, copied, pickled, and as handlers read it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import anthropic
import boto3
import cohere.core.api_error
import google.genai.errors
import groq
import mistralai.client.errors
import ollama
import openai
import pytest

from costmw.capture.clients.sdk_errors import sdk_error
from costmw.errors import BudgetExceeded

REASON = "budget 'tenant cap' tenant=acme has no room left"

SDKS: dict[str, type[Exception]] = {
    "OpenAI/Python 3.54.0": openai.OpenAIError,
    "AsyncAzureOpenAI/Python 1.0": openai.OpenAIError,
    "AsyncAnthropicBedrock/Python 2.1": anthropic.AnthropicError,
    "Groq/Python 1.7.0": groq.GroqError,
    "google-genai-sdk/3.4.0 gl-python/3.11.7": google.genai.errors.APIError,
    "mistral-client-python/3.7.0": mistralai.client.errors.MistralError,
    "cohere/7.3.1": cohere.core.api_error.ApiError,
    "ollama-python/0.6.3 (x86_64 linux) Python/3.11.7": ollama.ResponseError,
    "Boto3/1.44.5 md/Botocore#1.44.5": boto3.exceptions.botocore.exceptions.ClientError,
}


def refusal() -> BudgetExceeded:
    return BudgetExceeded(
        REASON,
        budget="tenant cap",
        scope={"tenant": "acme"},
        limit=Decimal(50),
        spent=Decimal("49.5"),
        held=Decimal("0.4"),
        asked=Decimal("0.2"),
        resets_at=datetime(2026, 12, 1, tzinfo=UTC),
    )


def of_sdk(agent: str, **headers: str) -> Any:
    return sdk_error(refusal(), {"user-agent": agent, **headers}, "openai.chat")


@pytest.mark.parametrize("agent", [None, *SDKS])
def test_it_says_the_same_however_it_is_copied(agent: str | None) -> None:
    error = of_sdk(agent) if agent else refusal()
    error.add_note("of the app")
    for copied in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert (type(error), REASON, (REASON,)) == (type(copied), str(copied), copied.args)
        assert vars(error) == vars(copied)
        assert f"BudgetExceeded({REASON!r})" == repr(copied)


@pytest.mark.parametrize(("agent", "base"), SDKS.items())
def test_an_sdk_is_known_by_what_it_says_of_itself(agent: str, base: type[Exception]) -> None:
    error = of_sdk(agent)
    assert isinstance(error, base)
    assert vars(refusal()).items() <= vars(error).items()
    assert 2 == len({error, of_sdk(agent)})


@pytest.mark.parametrize(
    ("api", "base"),
    [("openai.chat", openai.OpenAIError), ("anthropic.messages", anthropic.AnthropicError)],
)
def test_a_framework_above_an_sdk_is_known_by_its_format(api: str, base: type[Exception]) -> None:
    headers = {"user-agent": "framework/1", "x-stainless-lang": "python"}
    assert isinstance(sdk_error(refusal(), headers, api), base)


@pytest.mark.parametrize("agent", ["python-httpx/0.28", "Other/Python 1.0", ""])
def test_others_get_it_plain(agent: str) -> None:
    assert BudgetExceeded is type(of_sdk(agent))
    assert BudgetExceeded is type(of_sdk("Other/Python 1.0", **{"x-stainless-lang": "python"}))


@pytest.mark.parametrize(
    ("agent", "attributes"),
    [
        ("google-genai-sdk/3", {"code": 402, "message": REASON, "response": None}),
        ("mistral-client-python/3", {"status_code": 402, "message": REASON, "body": REASON}),
        ("cohere/7", {"status_code": 402, "body": REASON}),
        ("ollama-python/0.6", {"status_code": 402, "error": REASON}),
    ],
)
def test_it_has_what_handlers_of_the_sdk_ask_for(agent: str, attributes: dict[str, Any]) -> None:
    error = of_sdk(agent)
    assert attributes == {name: getattr(error, name) for name in attributes}


def test_handlers_of_boto3_find_its_code() -> None:
    error = of_sdk("Boto3/1.44").response["Error"]
    assert {"Code": "BudgetExceeded", "Message": REASON} == error


def test_an_sdk_that_is_not_loaded_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "openai")
    assert (BudgetExceeded, False) == (type(of_sdk("OpenAI/Python 3")), "openai" in sys.modules)


def test_a_process_without_the_sdk_unpickles_a_plain_refusal() -> None:
    script = (
        "import pickle, sys\n"
        "error = pickle.load(sys.stdin.buffer)\n"
        "print(type(error).__mro__[1].__name__, error, error.spent, 'openai' in sys.modules)"
    )
    pickled = pickle.dumps(of_sdk("OpenAI/Python 3"))
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickled, capture_output=True, check=True
    )
    assert f"CostmwError {REASON} 49.5 False\n" == done.stdout.decode()
