"""Users of the demo's app, and what the provider that costs nothing answers them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from costmw.demo.saying import say

if TYPE_CHECKING:
    from costmw.testing import Reply, RequestRecord

QUESTIONS = (
    "Where is my order?",
    "How do I change the address of an invoice that was sent last week?",
    "The export to CSV stops after a thousand rows, and nothing is said about it.",
    "Can two people share one account? We are a small team and do not want to pay twice.",
)


ANSWER = (
    "Thank you for your question. Open the settings, choose the invoice, and correct the "
    "address there; the next copy that you download has it. If it was sent already, we "
    "send a new one on the same day, at no cost."
)


@contextmanager
def traffic(address: str) -> Iterator[None]:
    """Users who ask something every other second, until the block ends."""
    stop = threading.Event()
    users = [
        threading.Thread(target=_user, args=(address, key, stop), daemon=True)
        for key in ("key-ann", "key-bob", "key-cho", "key-dee")
    ]
    for user in users:
        user.start()
    try:
        yield
    finally:
        stop.set()
        for user in users:
            user.join(5)


def _user(address: str, key: str, stop: threading.Event) -> None:
    import httpx2

    chance = random.Random(key)  # noqa: S311 - who asks what does not matter
    paths = ("/chat", "/chat", "/tickets/{}/summary", "/search")
    with httpx2.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}) as client:
        while not stop.wait(chance.uniform(0.5, 3.0)):
            path = chance.choice(paths).format(chance.randrange(1000))
            text = " ".join(chance.choices(QUESTIONS, k=chance.randint(1, 12)))
            try:
                client.post(path, json={"text": text})
            except httpx2.HTTPError as error:
                if not stop.is_set():
                    say(f"A request of the demo's traffic failed: {error}")


def answer(request: RequestRecord) -> Reply | None:
    """An answer of a size that real ones have."""
    from costmw.testing import Reply

    chance = random.Random(request.body_bytes)  # noqa: S311 - any size will do
    size, limit = len(request.body_bytes), request.json.get("max_tokens", 700)
    tokens_in, tokens_out = chance.randint(size // 6, size // 3), chance.randint(60, limit)
    text = " ".join(chance.choices(ANSWER.split(), k=tokens_out // 10))
    usage: dict[str, Any]
    if request.path.endswith("/messages"):
        usage = {"input_tokens": tokens_in, "output_tokens": tokens_out}
    elif request.path.endswith("/chat/completions"):
        usage = {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
            "prompt_tokens_details": {"cached_tokens": tokens_in // 2},
        }
    else:
        return None
    return Reply(text=text, usage=usage, delay=chance.uniform(0.1, 0.5), pace=0.01)
