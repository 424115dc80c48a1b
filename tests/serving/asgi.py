"""A Starlette app that makes one LLM call for each request, with a meter made at import."""

from __future__ import annotations

import os

import httpx2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from costmw import Meter, bind
from costmw.integrations.starlette import CostMiddleware

meter = Meter()
llm = meter.instrument(
    httpx2.AsyncClient(base_url=os.environ["PROVIDER"]), api="openai.responses", provider="openai"
)


async def chat(request: Request) -> PlainTextResponse:
    n = request.path_params["n"]
    bind(n=n)
    response = await llm.post("responses", json={"model": "gpt-5-mini", "input": n})
    response.raise_for_status()
    if "end" in request.query_params:
        journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(journal, f"{n} {meter.status().late}\n".encode())
        os._exit(1)
    return PlainTextResponse(str(os.getpid()))


app = Starlette(
    routes=[Route("/chat/{n}", chat)], middleware=[Middleware(CostMiddleware, meter=meter)]
)
