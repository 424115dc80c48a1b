"""Calls through the proxy that do not fit a budget: 402 as the provider would, and never sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import cohere
import cohere.core.api_error
import google.genai.errors
import httpx
import httpx2
import mistralai.client as mistralai
import openai
import pytest
from google import genai
from mistralai.client.errors import SDKError

from conftest import events_of, outcomes_of
from costmw import Budget, Meter
from costmw.proxy import ProxyConfig, Upstream
from costmw.testing import FakeProvider
from proxies import Proxy, serve
from test_sdk_matrix import HELLO

pytestmark = pytest.mark.filterwarnings("ignore:The `__fields__` attribute:DeprecationWarning")

CAP = Budget("secret cap", limit="0", action="block", max_output_tokens=77)
ROOMY = Budget("roomy", limit="1000000", action="block", max_output_tokens=77)
TOLD = "This would cost more than what is left of a budget for language models."


def settings(provider: FakeProvider, **more: Any) -> ProxyConfig:
    upstreams = {
        "openai": Upstream(provider.url),
        "anthropic": Upstream(provider.url),
        "google": Upstream(provider.google_url),
        "mistral": Upstream(provider.mistral_url),
        "cohere": Upstream(provider.cohere_url),
    }
    return ProxyConfig(upstreams=upstreams, **more)


@pytest.fixture
def capped(make_meter: Callable[..., Meter]) -> Meter:
    return make_meter(budgets=[CAP])


@pytest.fixture
def proxy(capped: Meter, provider: FakeProvider) -> Iterator[Proxy]:
    with serve(capped, settings(provider)) as running:
        yield running


def with_openai(url: str) -> Any:
    with openai.OpenAI(base_url=f"{url}/openai/v1", api_key="k", max_retries=4) as client:
        client.chat.completions.create(model="gpt-5-mini", messages=HELLO)


def with_openai_streamed(url: str) -> Any:
    with openai.OpenAI(base_url=f"{url}/openai/v1", api_key="k", max_retries=4) as client:
        client.chat.completions.create(model="gpt-5-mini", messages=HELLO, stream=True)


def with_anthropic(url: str) -> Any:
    with anthropic.Anthropic(base_url=f"{url}/anthropic", api_key="k", max_retries=4) as client:
        client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=HELLO)


def with_google(url: str) -> Any:
    with genai.Client(api_key="k", http_options={"base_url": f"{url}/google"}) as client:
        client.models.generate_content(model="gemini-2.5-flash", contents="hello")


def with_mistral(url: str) -> Any:
    with mistralai.Mistral(api_key="k", server_url=f"{url}/mistral") as client:
        client.chat.complete(model="mistral-small-latest", messages=HELLO)


def with_cohere(url: str) -> Any:
    with httpx.Client() as http:
        client = cohere.ClientV2("k", base_url=f"{url}/cohere", httpx_client=http)
        client.chat(model="command-a-03-2025", messages=HELLO)


@pytest.mark.parametrize(
    ("work", "error", "said"),
    [
        (with_openai, openai.APIStatusError, {"code": "budget_exceeded"}),
        (with_openai_streamed, openai.APIStatusError, {"type": "insufficient_quota"}),
        (with_anthropic, anthropic.APIStatusError, {"type": "billing_error"}),
        (with_google, google.genai.errors.ClientError, {"code": 402}),
        (with_mistral, SDKError, {"status_code": 402}),
        (with_cohere, cohere.core.api_error.ApiError, {"status_code": 402}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_sdk_reads_the_refusal_as_its_providers_and_does_not_retry(
    work: Callable[[str], Any],
    error: type[Exception],
    said: dict[str, Any],
    proxy: Proxy,
    capped: Meter,
    provider: FakeProvider,
) -> None:
    with pytest.raises(error) as caught:
        work(proxy.url)
    assert TOLD in str(caught.value)
    assert "secret cap" not in str(caught.value)
    assert said == {name: getattr(caught.value, name) for name in said}
    assert ([], {"refused": 1}, []) == (
        provider.requests,
        outcomes_of(capped),
        events_of(capped),
    )
    assert proxy.is_quiet()


def post(proxy: Proxy, **body: Any) -> httpx2.Response:
    return httpx2.post(f"{proxy.url}/openai/v1/chat/completions", json=body, timeout=20)


def test_a_refusal_says_that_it_is_not_to_be_tried_again_and_when_it_may(proxy: Proxy) -> None:
    answer = post(proxy, model="gpt-5-mini", messages=HELLO)
    assert (402, "false", "no-store", "costmw; error=http_request_denied") == (
        answer.status_code,
        answer.headers["x-should-retry"],
        answer.headers["cache-control"],
        answer.headers["proxy-status"],
    )
    assert 0 < int(answer.headers["retry-after"]) <= 31 * 86400


def test_clients_may_be_told_which_budget(capped: Meter, provider: FakeProvider) -> None:
    with serve(capped, settings(provider, explain_refusals=True)) as proxy:
        answer = post(proxy, model="gpt-5-mini", messages=HELLO)
    assert "budget 'secret cap' has 0.00 of 0.00 USD left" in answer.json()["error"]["message"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_request_is_given_the_budgets_limit(
    streamed: bool, make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    meter = make_meter(budgets=[ROOMY])
    with serve(meter, settings(provider)) as proxy:
        answer = post(proxy, model="gpt-5-mini", messages=HELLO, stream=streamed)
    assert (200, 77) == (answer.status_code, provider.requests[-1].json["max_completion_tokens"])
    assert b"prompt_tokens" not in answer.content or not streamed
    assert ["ok"] == [event.status for event in events_of(meter)]


def test_a_body_that_is_not_read_whole_is_held_as_one_of_any_size(
    make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    """A chunked body, too long to come in one piece: as it is it costs at most 0.08 USD."""
    asked = {"model": "gpt-5-mini", "max_completion_tokens": 5, "messages": HELLO}
    body = json.dumps({**asked, "user": "x" * 300_000}).encode()
    meter = make_meter(budgets=[Budget("cap", limit="0.2", action="block")])
    url = "/openai/v1/chat/completions"
    for read_limit, expected in ((1_000_000, 200), (1_000, 402)):
        with serve(meter, settings(provider, read_limit=read_limit)) as proxy:
            pieces = (body[at : at + 5_000] for at in range(0, len(body), 5_000))
            answer = httpx2.post(proxy.url + url, content=pieces, timeout=20)
        assert expected == answer.status_code
