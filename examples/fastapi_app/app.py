"""A small help desk on FastAPI that knows what each of its LLM calls costs.

Run it from this directory: `uvicorn app:app --workers 2`. With OPENAI_API_KEY or
ANTHROPIC_API_KEY set it calls the real provider, otherwise one that costs nothing.
The page is at /_llmcost: set LLMCOST_TOKEN (openssl rand -hex 16) and give it as the password.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from anthropic import AsyncAnthropic
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

from costmw import Budget, Meter, bind, metered
from costmw.dashboard.auth import Auth, token
from costmw.integrations.starlette import CostMiddleware, dashboard_app
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


def current_user(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> User:
    """Identify the caller, and bind every LLM call of this request to them."""
    user = USERS.get(credentials.credentials)
    if user is None:
        raise HTTPException(401, "unknown API key")
    bind(user=user.name, tenant=user.tenant)
    return user


class Question(BaseModel):
    """What a user asks."""

    text: str = Field(min_length=1, max_length=20_000)


def create_app(meter: Meter | None = None, page_auth: Auth | None = None) -> FastAPI:
    """Make the app; `page_auth` decides who may see the page."""
    meter = meter or Meter(
        os.environ.get("COSTMW_STORE", "sqlite:///llmcost.db"),
        tags={"environment": os.environ.get("APP_ENV", "development")},
        budgets=[
            Budget("all of the app", "200", period="month"),
            Budget("each tenant", "80", per="tenant", period="month", action="block"),
        ],
    )
    if page_auth is None and (secret := os.environ.get("LLMCOST_TOKEN")):
        page_auth = token(secret)
    fake = FakeProvider()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with fake:
            app.state.openai = meter.instrument(
                AsyncOpenAI()
                if os.environ.get("OPENAI_API_KEY")
                else AsyncOpenAI(base_url=fake.openai_url, api_key="none"),
                provider="openai",
            )
            app.state.anthropic = meter.instrument(
                AsyncAnthropic()
                if os.environ.get("ANTHROPIC_API_KEY")
                else AsyncAnthropic(base_url=fake.anthropic_url, api_key="none"),
                provider="anthropic",
            )
            yield
            await app.state.openai.close()
            await app.state.anthropic.close()

    app = FastAPI(title="Help desk", lifespan=lifespan)
    app.state.fake_provider = fake
    app.add_middleware(CostMiddleware, meter=meter)
    app.mount("/_llmcost", dashboard_app(meter, auth=page_auth))

    @app.post("/chat")
    @metered(feature="chat")
    async def chat(
        question: Question, user: Annotated[User, Depends(current_user)]
    ) -> StreamingResponse:
        """Answer a question, word by word."""
        stream = await app.state.openai.chat.completions.create(
            model="gpt-5-mini",
            messages=[
                {"role": "system", "content": f"You help {user.name}."},
                {"role": "user", "content": question.text},
            ],
            max_completion_tokens=800,
            stream=True,
        )

        async def words() -> AsyncIterator[str]:
            async for chunk in stream:
                yield chunk.choices[0].delta.content or ""

        return StreamingResponse(words(), media_type="text/plain")

    @app.post("/tickets/{ticket_id}/summary", dependencies=[Depends(current_user)])
    @metered(feature="summary")
    async def summarise(ticket_id: int, question: Question) -> dict[str, str | int]:
        """Sum a ticket up in one sentence."""
        message = await app.state.anthropic.messages.create(
            model="claude-haiku-4-5",
            max_tokens=200,
            messages=[{"role": "user", "content": f"One sentence: {question.text}"}],
        )
        return {"ticket": ticket_id, "summary": message.content[0].text}

    @app.post("/search", dependencies=[Depends(current_user)])
    @metered(feature="search")
    async def search(question: Question) -> dict[str, int]:
        """Embed a query; a real app would look its vector up."""
        answer = await app.state.openai.embeddings.create(
            model="text-embedding-3-small", input=question.text
        )
        return {"dimensions": len(answer.data[0].embedding)}

    return app


app = create_app()
