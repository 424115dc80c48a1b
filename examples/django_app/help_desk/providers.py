"""Clients of the providers, made at the first call, so that each worker has its own."""

from __future__ import annotations

import atexit
import os
from functools import cache

from anthropic import Anthropic
from openai import OpenAI

from costmw.integrations.django import get_meter
from costmw.testing import FakeProvider


@cache
def fake_provider() -> FakeProvider:
    """A provider for when there is no key."""
    provider = FakeProvider().start()
    atexit.register(provider.stop)
    return provider


@cache
def openai_client() -> OpenAI:
    client = (
        OpenAI()
        if os.environ.get("OPENAI_API_KEY")
        else OpenAI(base_url=fake_provider().openai_url, api_key="none")
    )
    return get_meter().instrument(client, provider="openai")


@cache
def anthropic_client() -> Anthropic:
    client = (
        Anthropic()
        if os.environ.get("ANTHROPIC_API_KEY")
        else Anthropic(base_url=fake_provider().anthropic_url, api_key="none")
    )
    return get_meter().instrument(client, provider="anthropic")
