"""What the app of the demo uses LLMs for, and who uses it: all of it made up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of call: tokens are an average, shares are parts of 1.

    `cached` is the part of the input that is read from a cache, `reasoning` that of the output
    that is reasoning; `often` how often it is done beside the other kinds. `ms` is how long it
    takes; `first_ms` until something comes, None where the answer comes at once.
    """

    feature: str
    team: str
    route: str
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    often: float
    ms: int
    first_ms: int | None = None
    cached: float = 0.0
    reasoning: float = 0.0
    operation: str = "chat"


CHAT = Work(
    "chat", "support", "/chat", "openai", "gpt-5-mini", 9000, 900, 0.42, 5200, 480, 0.6, 0.3
)
SEARCH = Work(
    "search",
    "platform",
    "/search",
    "openai",
    "text-embedding-3-small",
    900,
    0,
    0.2,
    140,
    operation="embeddings",
)
SUMMARY = Work(
    "summary",
    "support",
    "/tickets/{ticket_id}/summary",
    "anthropic",
    "claude-sonnet-4-5",
    14000,
    600,
    0.2,
    8300,
    900,
)
IN_THE_DAY = (
    CHAT,
    Work("chat", "support", "/chat", "openai", "gpt-5", 14000, 1500, 0.07, 14000, 2100, 0.5, 0.4),
    SUMMARY,
    SEARCH,
    Work(
        "invoices", "finance", "/invoices", "gcp.gemini", "gemini-2.5-flash", 20000, 800, 0.09, 4100
    ),
    Work("chat", "support", "/chat", "openai", "acme-tuned-1", 2000, 300, 0.02, 2600, 350),
)

AT_NIGHT = Work(
    "digest", "finance", "/jobs/digest", "anthropic", "claude-haiku-4-5", 40000, 1500, 1.0, 16000
)
"""A job that no user waits for."""

NIGHTLY_CALLS = 8


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer: who works there, how much they ask, and for how many days already."""

    users: tuple[str, ...]
    often: float
    days: int = 10_000


TENANTS = {
    "acme": Tenant(("ann", "bob", "eve"), 6.0),
    "globex": Tenant(("cho", "fay"), 3.0),
    "hooli": Tenant(("gus",), 1.5, days=12),
    "initech": Tenant(("dee",), 1.0),
}
