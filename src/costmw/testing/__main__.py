"""Serve a fake provider in the foreground: `python -m costmw.testing [--port PORT]`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from costmw.testing.provider import FakeProvider


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted, having printed the addresses; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m costmw.testing", description="Serve a fake LLM provider on this machine."
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on (default: any free one)"
    )
    port: int = parser.parse_args(arguments).port
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with FakeProvider(port=port) as provider:
        sys.stdout.write(
            f"fake provider at {provider.url}\n"
            f"  OpenAI base URL:    {provider.openai_url}\n"
            f"  Anthropic base URL: {provider.anthropic_url}\n"
            f"  Azure endpoint:     {provider.url}\n"
            f"  Google base URL:    {provider.google_url}\n"
            f"  Mistral server URL: {provider.mistral_url}\n"
            f"  Groq base URL:      {provider.groq_url}\n"
            f"  Cohere base URL:    {provider.cohere_url}\n"
            f"  Ollama host:        {provider.ollama_url}\n"
            f"  Bedrock endpoint:   {provider.bedrock_url}\n"
        )
        sys.stdout.flush()
        stopped.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
