"""What the LLM calls of a web request cost, in headers of its response.

Only the calls that have ended when the response begins are in them: what a streamed response
spends while it runs comes too late for its headers.
"""

from __future__ import annotations

from collections.abc import Iterator

from costmw.context import Scope
from costmw.money import format_usd


def keep_costs(scope: Scope) -> None:
    """Have the calls of a web request remembered until its response begins."""
    scope.ended_calls = []


def cost_headers(scope: Scope) -> Iterator[tuple[str, str]]:
    """`X-LLM-Cost` in USD, unless one call's cost is unknown, and `Server-Timing`.

    None for a request without calls, and none a second time.
    """
    ended, scope.ended_calls = scope.ended_calls, None
    if not ended:
        return
    known = [pico_usd for pico_usd, _ in ended if pico_usd is not None]
    calls = "1 call" if len(ended) == 1 else f"{len(ended)} calls"
    if len(known) == len(ended):
        yield "X-LLM-Cost", format_usd(sum(known))
    else:
        calls = f"{calls}, {len(ended) - len(known)} of unknown cost"
    yield "Server-Timing", f'llm;dur={sum(ms for _, ms in ended)};desc="{calls}"'
