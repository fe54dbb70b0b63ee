"""Anthropic's wire format: models and messages, plain and streamed."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tests.upstream import anthropic_request, text
from tests.upstream.replies import EVENTS, UNKNOWN, Event, RefusedError, Reply, Spent, answer, dump
from tests.upstream.scripts import Script

PAGE: Final = 20
MAX_PAGE: Final = 1_000
SIGNATURE: Final = "c2lnbmVk"
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
    anthropic_request.check(body)
    said = _say(body, script)
    limit = body["max_tokens"]
    reason, stop = "end_turn", None
    if said[-1].block["type"] == "tool_use":
        reason = "tool_use"
    else:
        tokens, stop = text.cut_at(said[-1].tokens, body.get("stop_sequences") or [])
        said[-1] = replace(said[-1], tokens=tokens)
    if stop is not None:
        reason = "stop_sequence"
    if sum(len(each.tokens) for each in said) > limit:
        reason, said = "max_tokens", _cut(said, limit)
    prompt = text.count_messages([*body["messages"], {"content": body.get("system")}])
    spent = Spent.of(prompt, sum(len(each.tokens) for each in said), script)
    head = {
        "id": f"msg_{next(_serial):024d}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        **(UNKNOWN if script.unknown_fields else {}),
    }
    end = {"stop_reason": reason, "stop_sequence": stop, "stop_details": None}
    usage = _usage(spent, said, script)
    if body.get("stream"):
        events = list(_events(head, said, end, usage))
        return Reply(events=events, content_type=EVENTS, spent=spent)
    told = {"usage": usage} if usage else {}
    return answer({**head, "content": [_filled(each) for each in said], **end, **told}, spent=spent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One block: as it begins, and the tokens it is filled with."""

    block: Mapping[str, Any]
    tokens: Sequence[str]


def _say(body: Mapping[str, Any], script: Script) -> list[Said]:
    """Make up what is said: thoughts, then words, or calls of tools unless they have answered."""
    last = body["messages"][-1].get("content")
    seed = text.text_of(last)
    thought = text.words(seed + "?", script.reasoning_tokens)
    block = {"type": "thinking", "thinking": "", "signature": ""}
    said = [Said(block=block, tokens=thought)] if thought else []
    for tool in _called(body, script):
        arguments = json.dumps(text.sample(tool.get("input_schema") or {}))
        call = {"type": "tool_use", "id": f"toolu_{next(_serial):020d}", "name": tool["name"]}
        said.append(Said(block={**call, "input": {}}, tokens=text.pieces(arguments)))
    if said and said[-1].block["type"] == "tool_use":
        return said
    wanted = (body.get("output_config") or {}).get("format")
    words = (
        text.words(seed, script.tokens)
        if wanted is None
        else text.pieces(json.dumps(text.sample(wanted["schema"])))
    )
    return [*said, Said(block={"type": "text", "text": ""}, tokens=words)]


def _called(body: Mapping[str, Any], script: Script) -> Sequence[Mapping[str, Any]]:
    tools = body.get("tools") or []
    choice = body.get("tool_choice") or {"type": "auto"}
    last = body["messages"][-1].get("content")
    is_answered = isinstance(last, list) and any(part["type"] == "tool_result" for part in last)
    if not tools or choice["type"] == "none" or (is_answered and choice["type"] == "auto"):
        return []
    if choice["type"] == "tool":
        return [tool for tool in tools if tool["name"] == choice["name"]]
    is_alone = choice.get("disable_parallel_tool_use") is True
    return tools[: 1 if is_alone else script.calls_at_once]


def _cut(said: Sequence[Said], limit: int) -> list[Said]:
    """Keep so many tokens; a call that is cut is never one that can be read."""
    kept: list[Said] = []
    for each in said:
        tokens = each.tokens[:limit]
        limit -= len(tokens)
        if len(tokens) == len(each.tokens) or each.block["type"] != "tool_use":
            kept.append(replace(each, tokens=tokens))
    return kept


def _filled(each: Said) -> dict[str, Any]:
    said = "".join(each.tokens)
    match each.block["type"]:
        case "text":
            return {**each.block, "text": said}
        case "thinking":
            return {**each.block, "thinking": said, "signature": SIGNATURE}
        case _:
            return {**each.block, "input": json.loads(said)}


def _usage(spent: Spent, said: Sequence[Said], script: Script) -> dict[str, Any]:
    if script.usage == "none":
        return {}
    cached = min(script.cached_tokens, spent.prompt)
    is_number = isinstance(spent.told_prompt, int)
    return {
        # Anthropic counts what came from its cache apart.
        "input_tokens": spent.told_prompt - cached if is_number else spent.told_prompt,
        "output_tokens": spent.told_completion,
        "output_tokens_details": {
            "thinking_tokens": sum(
                len(each.tokens) for each in said if each.block["type"] == "thinking"
            )
        },
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
    said: Sequence[Said],
    end: Mapping[str, Any],
    usage: Mapping[str, Any],
) -> Iterator[Event]:
    first = {"usage": {**usage, "output_tokens": 1}} if usage else {}
    nothing = {"stop_reason": None, "stop_sequence": None}
    yield _event("message_start", {"message": {**head, "content": [], **nothing, **first}})
    for index, each in enumerate(said):
        yield _event("content_block_start", {"index": index, "content_block": each.block})
        yield _event("ping", {})
        for token in each.tokens:
            delta = {"index": index, "delta": _delta(each, token)}
            yield _event("content_block_delta", delta, tokens=1)
        if each.block["type"] == "thinking":
            signed = {"type": "signature_delta", "signature": SIGNATURE}
            yield _event("content_block_delta", {"index": index, "delta": signed})
        yield _event("content_block_stop", {"index": index})
    told = {"output_tokens", "output_tokens_details"} & usage.keys()
    yield _event(
        "message_delta",
        {"delta": end, **({"usage": {name: usage[name] for name in told}} if told else {})},
    )
    yield _event("message_stop", {})


def _delta(each: Said, token: str) -> dict[str, str]:
    match each.block["type"]:
        case "text":
            return {"type": "text_delta", "text": token}
        case "thinking":
            return {"type": "thinking_delta", "thinking": token}
        case _:
            return {"type": "input_json_delta", "partial_json": token}


def failure() -> Event:
    """Say in the middle of a stream that it goes no further."""
    told = {"type": "overloaded_error", "message": "Overloaded"}
    return _event("error", {"error": told})
