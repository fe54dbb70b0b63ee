"""Anthropic's wire format: models and messages, plain and streamed."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tests.upstream import text
from tests.upstream.replies import EVENTS, UNKNOWN, Event, RefusedError, Reply, Spent, answer, dump
from tests.upstream.scripts import Script

PAGE: Final = 20
MAX_PAGE: Final = 1_000
MADE_AT: Final = "2025-10-01T00:00:00Z"

_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
_serial = itertools.count(1)


def error(status: int, message: str, *, request_id: str) -> bytes:
    kind = _TYPES.get(status, "api_error")
    told = {"type": kind, "message": message}
    return dump({"type": "error", "error": told, "request_id": request_id})


def models(names: Sequence[str], query: Mapping[str, str], script: Script) -> Reply:
    """List a page of models, as `limit` and `after_id` ask for."""
    limit = int(query.get("limit", PAGE))
    if not 1 <= limit <= MAX_PAGE:
        raise RefusedError(400, f"limit: use 1 to {MAX_PAGE}")
    after = query.get("after_id")
    start = names.index(after) + 1 if after in names else 0
    page = names[start : start + limit]
    return answer(
        {
            "data": [model(name) for name in page],
            "has_more": start + limit < len(names),
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
            **(UNKNOWN if script.unknown_fields else {}),
        }
    )


def model(name: str) -> dict[str, object]:
    return {
        "type": "model",
        "id": name,
        "display_name": name.title(),
        "created_at": MADE_AT,
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }


def messages(body: Mapping[str, Any], script: Script) -> Reply:
    given, limit = body.get("messages"), body.get("max_tokens")
    if not isinstance(limit, int) or limit < 1:
        raise RefusedError(400, "max_tokens: Field required")
    if not isinstance(given, list) or not given:
        raise RefusedError(400, "messages: Field required")
    block, tokens = _block(body, script)
    tokens, stop = text.cut_at(tokens, body.get("stop_sequences") or [])
    reason = "tool_use" if block["type"] == "tool_use" else "end_turn"
    if stop is not None:
        reason = "stop_sequence"
    elif len(tokens) > limit:
        reason, tokens = "max_tokens", tokens[:limit]
    prompt = text.count_messages([*given, {"content": body.get("system")}])
    spent = Spent.of(prompt, len(tokens), script)
    head = {
        "id": f"msg_{next(_serial):024d}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        **(UNKNOWN if script.unknown_fields else {}),
    }
    end = {"stop_reason": reason, "stop_sequence": stop}
    usage = _usage(spent, script)
    if body.get("stream"):
        events = list(_events(head, block, tokens, end, usage))
        return Reply(events=events, content_type=EVENTS, spent=spent)
    told = {"usage": usage} if usage else {}
    return answer({**head, "content": [_filled(block, tokens)], **end, **told}, spent=spent)


def _block(body: Mapping[str, Any], script: Script) -> tuple[dict[str, Any], Sequence[str]]:
    """Make up what is said: words, or the call of the first tool unless one has answered."""
    last = body["messages"][-1].get("content")
    is_answered = isinstance(last, list) and any(
        isinstance(part, dict) and part.get("type") == "tool_result" for part in last
    )
    tools = body.get("tools") or []
    if tools and not is_answered and (body.get("tool_choice") or {}).get("type") != "none":
        arguments = json.dumps(text.sample(tools[0].get("input_schema") or {}))
        call = {"type": "tool_use", "id": f"toolu_{next(_serial):020d}", "name": tools[0]["name"]}
        return {**call, "input": {}}, text.pieces(arguments)
    return {"type": "text", "text": ""}, text.words(text.text_of(last), script.tokens)


def _filled(block: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, Any]:
    said = "".join(tokens)
    if block["type"] == "text":
        return {**block, "text": said}
    return {**block, "input": json.loads(said)}


def _usage(spent: Spent, script: Script) -> dict[str, Any]:
    if script.usage == "none":
        return {}
    cached = min(script.cached_tokens, spent.prompt)
    is_number = isinstance(spent.told_prompt, int)
    return {
        # Anthropic counts what came from its cache apart.
        "input_tokens": spent.told_prompt - cached if is_number else spent.told_prompt,
        "output_tokens": spent.told_completion,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "service_tier": "standard",
    }


def _event(kind: str, fields: Mapping[str, object], *, tokens: int = 0) -> Event:
    data = dump({"type": kind, **fields})
    return Event(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n", tokens)


def _events(
    head: Mapping[str, Any],
    block: Mapping[str, Any],
    tokens: Sequence[str],
    end: Mapping[str, Any],
    usage: Mapping[str, Any],
) -> Iterator[Event]:
    first = {"usage": {**usage, "output_tokens": min(1, len(tokens))}} if usage else {}
    nothing = {"stop_reason": None, "stop_sequence": None}
    yield _event("message_start", {"message": {**head, "content": [], **nothing, **first}})
    yield _event("content_block_start", {"index": 0, "content_block": block})
    yield _event("ping", {})
    for token in tokens:
        delta = (
            {"type": "text_delta", "text": token}
            if block["type"] == "text"
            else {"type": "input_json_delta", "partial_json": token}
        )
        yield _event("content_block_delta", {"index": 0, "delta": delta}, tokens=1)
    yield _event("content_block_stop", {"index": 0})
    told = {"usage": {"output_tokens": usage["output_tokens"]}} if usage else {}
    yield _event("message_delta", {"delta": end, **told})
    yield _event("message_stop", {})
