"""A Flask app that makes one LLM call for each request, with a meter made at import."""

from __future__ import annotations

import os
from functools import cache

import httpx2
from flask import Flask, request

from costmw import Meter, bind
from costmw.integrations.flask import LLMCost

meter = Meter()
app = Flask(__name__)
LLMCost(app, meter=meter, url_prefix=None)


@cache
def llm() -> httpx2.Client:
    """One for each worker: connections are not to be shared, nor locks with greenlets."""
    client = httpx2.Client(base_url=os.environ["PROVIDER"])
    return meter.instrument(client, api="openai.responses", provider="openai")


@app.get("/chat/<n>")
def chat(n: str) -> str:
    bind(n=n)
    llm().post("responses", json={"model": "gpt-5-mini", "input": n}).raise_for_status()
    if "end" in request.args:
        journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(journal, f"{n} {meter.status().late}\n".encode())
        os._exit(1)
    return str(os.getpid())
