"""What Anthropic's API answers, told in OpenAI's words: messages, usage and refusals."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.estimates import count_text
from maas.inference.domain.wire import BrokenStreamError, Refusal, Told

_FINISHES: Final[Mapping[str, str]] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "tool_use": "tool_calls",
}
_TIERS: Final[Mapping[str, str]] = {"standard": "default", "priority": "priority"}
_MOST_TOKENS: Final = 10**12
"""More is nonsense, and not a count."""

MAX_MESSAGE_CHARS: Final = 2_000

MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""Of a whole message: the longest there are have some 128,000 tokens."""

_PARAM: Final = re.compile(r"([a-z_]+)(?:\.[\w.]+)?: ")
_PARAMS: Final[Mapping[str, str]] = {
    "metadata": "user",
    "output_config": "response_format",
    "stop_sequences": "stop",
    "system": "messages",
    "thinking": "reasoning_effort",
}
"""Whose fault it is where the caller's field has another name than Anthropic's."""


def read_answer(ask: Ask, body: bytes, *, made_at: int) -> Told:
    """Read a whole message.

    Raises:
        BrokenStreamError: it is none, or longer than any is.
    """
    if len(body) > MAX_MESSAGE_BYTES:
        raise BrokenStreamError
    try:
        message: object = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise BrokenStreamError from exc
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        raise BrokenStreamError
    blocks = [block for block in message["content"] if isinstance(block, dict)]
    said = _message(blocks, message)
    usage = message.get("usage")
    counts = count_usage(usage)
    told = {
        **head_of(message, "chat.completion", made_at=made_at),
        "choices": [
            {
                "index": 0,
                "message": said,
                "logprobs": None,
                "finish_reason": finish_of(message.get("stop_reason")),
            }
        ],
        **({} if counts is None else {"usage": tell_usage(counts, usage)}),
    }
    return Told(body=dump(told), counts=counts, seen=counts or _estimated(ask, said))


def head_of(message: Mapping[str, object], kind: str, *, made_at: int) -> dict[str, object]:
    """Tell what an answer and each of its chunks begin with."""
    usage = message.get("usage")
    tier = str(usage.get("service_tier")) if isinstance(usage, dict) else ""
    return {
        "id": f"chatcmpl-{message.get('id')}",
        "object": kind,
        "created": made_at,
        "model": str(message.get("model")),
        **({"service_tier": _TIERS[tier]} if tier in _TIERS else {}),
    }


def finish_of(reason: object) -> str:
    return _FINISHES.get(str(reason), "stop")


def _message(
    blocks: Iterable[Mapping[str, object]], whole: Mapping[str, object]
) -> dict[str, object]:
    texts: list[str] = []
    thoughts: list[str] = []
    signed: list[Mapping[str, object]] = []
    calls: list[dict[str, object]] = []
    for block in blocks:
        match block.get("type"):
            case "text":
                texts.append(str(block.get("text")))
            case "thinking":
                thoughts.append(str(block.get("thinking")))
                signed.append(block)
            case "redacted_thinking":
                signed.append(block)
            case "tool_use":
                calls.append(tell_call(block, json.dumps(block.get("input"), ensure_ascii=False)))
            case _:
                # Blocks of tools that run over there, which nobody can ask for through us.
                continue
    return {
        "role": "assistant",
        "content": "".join(texts) if texts or not calls else None,
        "refusal": _refused(whole),
        "annotations": [],
        **({"reasoning_content": "".join(thoughts)} if thoughts else {}),
        # They carry a signature, and want to be sent back with what follows from them.
        **({"thinking_blocks": signed} if signed else {}),
        **({"tool_calls": calls} if calls else {}),
    }


def tell_call(block: Mapping[str, object], arguments: str) -> dict[str, object]:
    return {
        "id": block.get("id"),
        "type": "function",
        "function": {"name": block.get("name"), "arguments": arguments},
    }


def _estimated(ask: Ask, said: Mapping[str, object]) -> TokenCounts:
    calls = said.get("tool_calls")
    return TokenCounts(
        input=ask.likely_input,
        output=count_text(str(said.get("content") or ""))
        + (count_text(json.dumps(calls, ensure_ascii=False)) if calls else 0),
        reasoning=count_text(str(said.get("reasoning_content") or "")),
    )


def _refused(whole: Mapping[str, object]) -> object:
    details = whole.get("stop_details")
    return details.get("explanation") if isinstance(details, dict) else None


def count_usage(usage: object) -> TokenCounts | None:
    """Read the supplier's own count; what can be no count is none, and is estimated then.

    All that was read is input, from the cache or into it; what was thought is part of the output
    over there, and stands beside it here.
    """
    if not isinstance(usage, dict):
        return None
    details = usage.get("output_tokens_details") or {}
    if not isinstance(details, dict):
        return None
    fresh, output = _count(usage.get("input_tokens")), _count(usage.get("output_tokens"))
    cached = _count(usage.get("cache_read_input_tokens"), absent=0)
    written = _count(usage.get("cache_creation_input_tokens"), absent=0)
    thought = _count(details.get("thinking_tokens"), absent=0)
    if fresh is None or output is None or cached is None or written is None or thought is None:
        return None
    if thought > output:
        return None
    return TokenCounts(
        input=fresh + cached + written, cached=cached, output=output - thought, reasoning=thought
    )


def _count(value: object, *, absent: int | None = None) -> int | None:
    if value is None:
        return absent
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MOST_TOKENS else None


def tell_usage(counts: TokenCounts, usage: object) -> dict[str, object]:
    """Tell the counts in OpenAI's words, of which reasoning is part of the completion."""
    written = usage.get("cache_creation_input_tokens") if isinstance(usage, dict) else None
    return {
        "prompt_tokens": counts.input,
        "completion_tokens": counts.output + counts.reasoning,
        "total_tokens": counts.total,
        "prompt_tokens_details": {
            "cached_tokens": counts.cached,
            "cache_write_tokens": written or 0,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": counts.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def read_refusal(status: int, body: bytes) -> Refusal | None:
    """Read what Anthropic says against the request, and whose field it says it of."""
    try:
        told: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    error = told.get("error") if isinstance(told, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return None
    message: str = error["message"][:MAX_MESSAGE_CHARS]
    if message.startswith("prompt is too long"):
        return Refusal(
            status=status, message=message, param="messages", code="context_length_exceeded"
        )
    found = _PARAM.match(message)
    param = found[1] if found else None
    return Refusal(status=status, message=message, param=_PARAMS.get(param or "", param))


def dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
