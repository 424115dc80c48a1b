"""Run apps and tests against a provider that costs nothing.

`FakeProvider` serves the HTTP APIs of OpenAI, Azure OpenAI, Anthropic, Google (Gemini and
Vertex AI), Mistral, Groq, Cohere, Ollama and Amazon Bedrock on this machine; `Reply` says
what it answers. `python -m costmw.testing` serves one in the foreground.
"""

from costmw.testing.provider import FakeProvider
from costmw.testing.reply import Reply, RequestRecord

__all__ = ["FakeProvider", "Reply", "RequestRecord"]
