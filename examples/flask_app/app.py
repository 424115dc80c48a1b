"""A small help desk on Flask that knows what each of its LLM calls costs.

Run it from this directory: `gunicorn app:app --workers 2 --threads 8`. With
OPENAI_API_KEY or ANTHROPIC_API_KEY set it calls the real provider, otherwise one that
costs nothing. The page is at /_llmcost: set LLMCOST_TOKEN (openssl rand -hex 16) and
give it as the password.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from anthropic import Anthropic
from flask import Flask, Response, abort, g, request
from openai import OpenAI

from costmw import Budget, Meter, metered
from costmw.dashboard.auth import Auth, token
from costmw.integrations.flask import LLMCost
from costmw.testing import FakeProvider


@dataclass(frozen=True)
class User:
    """Who an API key belongs to."""

    name: str
    tenant: str


# A real app looks them up in its database.
USERS = {
    "key-ann": User("ann", "acme"),
    "key-bob": User("bob", "acme"),
    "key-cho": User("cho", "globex"),
    "key-dee": User("dee", "initech"),
}

meter = Meter(
    os.environ.get("COSTMW_STORE", "sqlite:///llmcost.db"),
    tags={"environment": os.environ.get("APP_ENV", "development")},
    budgets=[
        Budget("all of the app", "200", period="month"),
        Budget("each tenant", "80", per="tenant", period="month", action="block"),
    ],
)


@cache
def fake_provider() -> FakeProvider:
    """A provider for when there is no key, one for each worker."""
    provider = FakeProvider().start()
    atexit.register(provider.stop)
    return provider


@cache
def openai_client() -> OpenAI:
    """Made at the first call, so that each worker has its own."""
    client = (
        OpenAI()
        if os.environ.get("OPENAI_API_KEY")
        else OpenAI(base_url=fake_provider().openai_url, api_key="none")
    )
    return meter.instrument(client, provider="openai")


@cache
def anthropic_client() -> Anthropic:
    """Made at the first call, so that each worker has its own."""
    client = (
        Anthropic()
        if os.environ.get("ANTHROPIC_API_KEY")
        else Anthropic(base_url=fake_provider().anthropic_url, api_key="none")
    )
    return meter.instrument(client, provider="anthropic")


def page_auth() -> Auth | None:
    """Who may see the page: whoever has the token; nobody while there is none."""
    secret = os.environ.get("LLMCOST_TOKEN")
    return token(secret) if secret else None


app = Flask(__name__)
LLMCost(
    app,
    meter=meter,
    tags=lambda request: {"user": g.user.name, "tenant": g.user.tenant},
    auth=page_auth(),
)


@app.before_request
def identify() -> None:
    """Identify the caller by their API key."""
    if request.blueprint == "llmcost":
        return
    key = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if key not in USERS:
        abort(401)
    g.user = USERS[key]


def asked() -> str:
    """The question in the request's JSON body."""
    body = request.get_json()
    text = body.get("text") if isinstance(body, dict) else None
    if not isinstance(text, str) or not text:
        abort(400, "send a JSON object with a text")
    return text


@app.post("/chat")
def chat() -> Response:
    """Answer a question, word by word."""
    question = asked()

    @metered(feature="chat")
    def words() -> Iterator[str]:
        stream = openai_client().chat.completions.create(
            model="gpt-5-mini",
            messages=[{"role": "user", "content": question}],
            max_completion_tokens=800,
            stream=True,
        )
        for chunk in stream:
            yield chunk.choices[0].delta.content or ""

    return Response(words(), mimetype="text/plain")


@app.post("/tickets/<int:ticket_id>/summary")
@metered(feature="summary")
def summarise(ticket_id: int) -> dict[str, str | int]:
    """Sum a ticket up in one sentence."""
    message = anthropic_client().messages.create(
        model="claude-haiku-4-5",
        max_tokens=200,
        messages=[{"role": "user", "content": f"One sentence: {asked()}"}],
    )
    block = message.content[0]
    return {"ticket": ticket_id, "summary": block.text if block.type == "text" else ""}


@app.post("/search")
@metered(feature="search")
def search() -> dict[str, int]:
    """Embed a query; a real app would look its vector up."""
    answer = openai_client().embeddings.create(model="text-embedding-3-small", input=asked())
    return {"dimensions": len(answer.data[0].embedding)}
