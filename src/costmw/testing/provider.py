"""The fake provider: what it answers next, what it was asked, and its server."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING

from costmw.testing.app import ProviderApp
from costmw.testing.reply import Reply, RequestRecord
from costmw.testing.server import ThreadedServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self


class FakeProvider:
    """A fake LLM provider on this machine, for apps, tests and demos.

    Use it as a context manager, or call `start` and `stop`. Point an SDK's base URL at the
    property named after it (`openai_url`, `google_url`, ...), or an Azure client's endpoint
    at `url`. All of it may be used from any thread.

    A request is answered with the next reply queued by `reply`; with none left, with what
    `responder` returns; and without a responder, or if that returns None, with `default`.

    app: The ASGI application, for serving or mounting it elsewhere.
    default: The reply used when nothing else is at hand.
    responder: Called with the record of a request, in a worker thread. It may block, but
        `stop` waits for it. An exception is logged and becomes a response of status 500.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, keep: int = 10_000) -> None:
        """Prepare a provider; port 0 takes a free one, `keep` bounds `requests`."""
        self.default = Reply()
        self.responder: Callable[[RequestRecord], Reply | None] | None = None
        self.app = ProviderApp(
            choose=self._choose, on_request=self._note, on_served=self._count_served
        )
        self._host = host
        self._port = port
        self._lock = threading.Lock()
        self._queue: deque[Reply] = deque()
        self._requests: deque[RequestRecord] = deque(maxlen=keep)
        self._served = 0
        self._server: ThreadedServer | None = None

    def start(self) -> Self:
        """Start serving; returns when requests can be made."""
        if self._server is not None:
            raise RuntimeError("this fake provider is running already")
        self._server = ThreadedServer(self.app, host=self._host, port=self._port)
        return self

    def stop(self) -> None:
        """Stop serving: connections still open are closed. Harmless when not running."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address of the running server, with no trailing slash."""
        if self._server is None:
            raise RuntimeError("this fake provider is not running")
        return f"http://{self._host}:{self._server.port}"

    @property
    def openai_url(self) -> str:
        """Base URL for an OpenAI client."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """Base URL for an Anthropic client."""
        return self.url

    @property
    def google_url(self) -> str:
        """Base URL for google-genai: `Client(http_options=HttpOptions(base_url=...))`.

        The same for Vertex AI, which also wants `vertexai=True` and either an `api_key` or
        credentials, `project` and `location`.
        """
        return f"{self.url}/google"

    @property
    def mistral_url(self) -> str:
        """Base URL for mistralai: `Mistral(server_url=...)`."""
        return f"{self.url}/mistral"

    @property
    def groq_url(self) -> str:
        """Base URL for groq: `Groq(base_url=...)`, `AsyncGroq(base_url=...)`."""
        return f"{self.url}/groq"

    @property
    def cohere_url(self) -> str:
        """Base URL for cohere: `ClientV2(base_url=...)`, `Client(base_url=...)`, async alike."""
        return f"{self.url}/cohere"

    @property
    def ollama_url(self) -> str:
        """Host for ollama: `Client(host=...)`, `AsyncClient(host=...)`."""
        return f"{self.url}/ollama"

    @property
    def bedrock_url(self) -> str:
        """Endpoint for boto3: `client("bedrock-runtime", endpoint_url=...)`.

        boto3 also wants a region, and some access key.
        """
        return f"{self.url}/bedrock"

    def reply(self, *replies: Reply) -> None:
        """Queue replies; each is used for one request, in order."""
        with self._lock:
            self._queue.extend(replies)

    @property
    def requests(self) -> list[RequestRecord]:
        """The newest requests in order of arrival, as a list of their live records."""
        with self._lock:
            return list(self._requests)

    @property
    def served(self) -> int:
        """How many responses with a 2xx status were sent whole."""
        with self._lock:
            return self._served

    def clear(self) -> None:
        """Forget queued replies, recorded requests and the count of those served."""
        with self._lock:
            self._queue.clear()
            self._requests.clear()
            self._served = 0

    async def _choose(self, record: RequestRecord) -> Reply:
        with self._lock:
            if self._queue:
                return self._queue.popleft()
        responder = self.responder
        answer = None if responder is None else await asyncio.to_thread(responder, record)
        return answer or self.default

    def _note(self, record: RequestRecord) -> None:
        with self._lock:
            self._requests.append(record)

    def _count_served(self, change: int) -> None:
        with self._lock:
            self._served += change
