from __future__ import annotations

import json
from collections.abc import Iterator

from django.core.exceptions import BadRequest
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_POST

from costmw import metered

from .providers import anthropic_client, openai_client


def asked(request: HttpRequest) -> str:
    """The question in the request's JSON body."""
    try:
        body = json.loads(request.body)
    except ValueError:
        body = None
    text = body.get("text") if isinstance(body, dict) else None
    if not isinstance(text, str) or not text:
        raise BadRequest("send a JSON object with a text")
    return text


@require_POST
def chat(request: HttpRequest) -> StreamingHttpResponse:
    """Answer a question, word by word."""
    question = asked(request)

    @metered(feature="chat")
    def words() -> Iterator[str]:
        stream = openai_client().chat.completions.create(
            model="gpt-5-mini",
            messages=[{"role": "user", "content": question}],
            max_completion_tokens=800,
            stream=True,
        )
        for chunk in stream:
            yield chunk.choices[0].delta.content or ""

    return StreamingHttpResponse(words(), content_type="text/plain")


@require_POST
@metered(feature="summary")
def summarise(request: HttpRequest, ticket_id: int) -> JsonResponse:
    """Sum a ticket up in one sentence."""
    message = anthropic_client().messages.create(
        model="claude-haiku-4-5",
        max_tokens=200,
        messages=[{"role": "user", "content": f"One sentence: {asked(request)}"}],
    )
    block = message.content[0]
    return JsonResponse(
        {"ticket": ticket_id, "summary": block.text if block.type == "text" else ""}
    )


@require_POST
@metered(feature="search")
def search(request: HttpRequest) -> JsonResponse:
    """Embed a query; a real app would look its vector up."""
    answer = openai_client().embeddings.create(model="text-embedding-3-small", input=asked(request))
    return JsonResponse({"dimensions": len(answer.data[0].embedding)})
