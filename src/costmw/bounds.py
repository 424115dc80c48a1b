"""What a call may cost at most, before it is sent: what a cap holds for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from costmw.chargeable import Asked, Chargeable
from costmw.money import MAX_PICO
from costmw.pricing import Pricing
from costmw.providers.base import Match
from costmw.providers.hosted_tools import Advisor
from costmw.providers.known import find_provider
from costmw.providers.most_media import MOST_MEDIA
from costmw.providers.most_used import CONTEXT_ASSUMED, Asking, MostUsed, most_used
from costmw.worst_prices import Kinds

Json = Mapping[str, Any]

NO_PRICE_OF_TOOL = 50_000_000_000
"""Pico-USD for a use of a tool that the list has no price of: more than any costs (0.05 USD)."""

_UNBOUNDED = {
    "openai.batches": "the requests of a batch are in a file, so that nothing bounds what they "
    "cost: leave batches out of the budget by a tag of their own and its where=, or send the "
    "requests one by one",
    "bedrock.agents": "an agent asks models of its own choice as often as it likes, so that "
    "nothing bounds what it costs: leave agents out of the budget by a tag of their own and its "
    "where=, or ask the model itself",
}
_AGENT = _UNBOUNDED["bedrock.agents"]

_CACHING_WHEN_ASKED = ("anthropic.", "bedrock.", "google.")
"""Formats in which nothing is written to a cache, at a price, unless the request asks for it."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a call may cost at most.

    `pico_usd` is None when nothing bounds it; `reason` says why. `unpriced`: the model has no
    price, as `reason` says, and `pico_usd` goes by the dearest known ones of its provider, None
    when that has none. `warning`: what makes it larger than it would have to be, and the
    remedy; None when all is well.
    """

    pico_usd: int | None
    unpriced: bool = False
    reason: str | None = None
    warning: str | None = None


class Bounds:
    """Works out what calls may cost at most.

    Args:
        pricing: the prices that calls are then charged.
    """

    def __init__(self, pricing: Pricing) -> None:
        self._pricing = pricing

    def bound(
        self,
        match: Match,
        model: str | None,
        body: Json,
        size: int,
        at: datetime,
        *,
        max_output_tokens: int | None = None,
    ) -> Bound:
        """Bound the cost of a request.

        Args:
            match: its wire format and who bills it.
            model: the model that is asked.
            body: its JSON object, or the fields of its form; empty when it cannot be read.
            size: its length in bytes.
            at: when it is sent; decides dated prices.
            max_output_tokens: the limit that is set for it when it has none itself.
        """
        api = match.format.api
        if match.format.method == "GET":
            return Bound(0)  # asking for a result; whoever submitted it has its hold
        if reason := _UNBOUNDED.get(api):
            return Bound(None, reason=reason)
        if model is None and isinstance(body.get("agent"), str):
            return Bound(None, reason=_AGENT)
        if api == "anthropic.batches":
            return self._batch(match, body, at)
        provider = match.provider.name if match.provider else None
        asked = _asked(body)
        return _dearest(
            [
                self._of_model(
                    api, provider, name, body, size, at, asked=asked, output_limit=max_output_tokens
                )
                for name in _models(model, body)
            ]
        )

    def affordable_tokens(
        self,
        pico_usd: int,
        *,
        provider: str | None,
        model: str,
        input_tokens: int,
        at: datetime,
    ) -> int | None:
        """How many tokens an answer may have so that a call costs no more than `pico_usd`.

        Returns:
            0 when the input alone costs more; None when the model has no price, or when its
            answers cost nothing.
        """
        found = self._pricing.chargeable(
            provider=provider, model=model, at=at, asked=_NOTHING_ASKED
        )
        if found.prices is None or found.unpriced is not None:
            return None
        families = find_provider(provider).families if provider else ()
        kinds = Kinds(caches_unasked=not families or "openai" in families[:1])
        costs = found.prices.costs(input_tokens, kinds)
        if not costs.output_token:
            return None
        left = pico_usd - costs.request - input_tokens * costs.input_token
        return max(left // costs.output_token, 0)

    def _of_model(
        self,
        api: str,
        provider: str | None,
        model: str | None,
        body: Json,
        size: int,
        at: datetime,
        *,
        asked: Asked,
        output_limit: int | None,
    ) -> Bound:
        chargeable = self._pricing.chargeable(provider=provider, model=model, at=at, asked=asked)
        if chargeable.prices is None:
            return Bound(None, unpriced=True, reason=chargeable.unpriced)
        asking = Asking(api, body, size, model, provider, chargeable.context_window, output_limit)
        used = MOST_MEDIA.get(api, most_used)(asking)
        cost = _cost(chargeable, used, caches_unasked=not api.startswith(_CACHING_WHEN_ASKED))
        for advisor in used.advisors:
            asked_beside = self._of_advisor(provider, advisor, asking, used, at)
            if asked_beside is None:
                return Bound(None, unpriced=True, reason=f"{advisor.model} has no price")
            cost += asked_beside
        if _is_in_one_region(body):
            cost += cost // 10 + 1
        return Bound(
            min(cost, MAX_PICO),
            unpriced=chargeable.unpriced is not None,
            reason=chargeable.unpriced,
            warning="; ".join(used.warnings) or None,
        )

    def _of_advisor(
        self, provider: str | None, advisor: Advisor, asking: Asking, used: MostUsed, at: datetime
    ) -> int | None:
        """What another model may cost that is asked on behalf of the one that answers."""
        found = self._pricing.chargeable(
            provider=provider, model=advisor.model, at=at, asked=_NOTHING_ASKED
        )
        if found.prices is None:
            return None
        context = found.context_window or CONTEXT_ASSUMED
        read = min(context, used.input_tokens + used.output_tokens)
        written = context if advisor.output_tokens is None else advisor.output_tokens
        costs = found.prices.costs(read, Kinds(caches_for="1h"))
        return advisor.uses * (read * costs.input_token + written * costs.output_token)

    def _batch(self, match: Match, body: Json, at: datetime) -> Bound:
        """The sum of a batch's requests."""
        provider = match.provider.name if match.provider else None
        requests = body.get("requests")
        bounds = []
        for request in requests if isinstance(requests, list) else ():
            params = request.get("params") if isinstance(request, Mapping) else None
            if isinstance(params, Mapping):
                model = params.get("model")
                bounds.append(
                    self._of_model(
                        "anthropic.messages",
                        provider,
                        model if isinstance(model, str) else None,
                        params,
                        len(to_json(params)),
                        at,
                        asked=Asked(batch=True),
                        output_limit=None,
                    )
                )
        costs = [bound.pico_usd for bound in bounds if bound.pico_usd is not None]
        first = _dearest(bounds) if bounds else Bound(0)
        total = min(sum(costs), MAX_PICO) if len(costs) == len(bounds) else None
        return Bound(total, any(bound.unpriced for bound in bounds), first.reason, first.warning)


def _asked(body: Json) -> Asked:
    tier = body.get("service_tier") or body.get("serviceTier")
    if isinstance(tier, Mapping):
        tier = tier.get("type")
    speed = body.get("speed")
    if not tier and not speed:
        return _NOTHING_ASKED
    return Asked(
        tiers=frozenset({tier}) if isinstance(tier, str) else frozenset(),
        speed=speed if isinstance(speed, str) else "",
    )


_NOTHING_ASKED = Asked()


def _models(model: str | None, body: Json) -> list[str | None]:
    """The model that is asked, and those that may answer in its place."""
    found: list[str | None] = [model]
    for key in ("models", "fallbacks"):
        others = body.get(key)
        for other in others if isinstance(others, list) else ():
            name = other.get("model") if isinstance(other, Mapping) else other
            if isinstance(name, str) and name not in found:
                found.append(name)
    return found


def _dearest(bounds: list[Bound]) -> Bound:
    """The highest of several bounds; one without a figure is higher than any."""
    return max(bounds, key=lambda b: MAX_PICO + 1 if b.pico_usd is None else b.pico_usd)


def _is_in_one_region(body: Json) -> bool:
    """Whether Anthropic is asked to answer in one region, which costs a tenth more."""
    return body.get("inference_geo") not in (None, "global")


def _cost(chargeable: Chargeable, used: MostUsed, *, caches_unasked: bool) -> int:
    assert chargeable.prices is not None
    kinds = Kinds(used.caches_for, caches_unasked, used.reads, used.writes)
    costs = chargeable.prices.costs(used.input_tokens, kinds)
    cost = (
        costs.request
        + used.input_tokens * costs.input_token
        + used.output_tokens * costs.output_token
        + used.billed_tool_uses * (costs.tool_use or NO_PRICE_OF_TOOL)
    )
    for family, count in used.other.items():
        cost += count * costs.other.get(family, 0)
    return cost
