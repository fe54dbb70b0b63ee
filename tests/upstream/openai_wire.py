"""OpenAI's wire format: models, chat, completions and embeddings, plain and streamed."""

import base64
import itertools
import json
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.upstream import text
from tests.upstream.replies import EVENTS, UNKNOWN, Event, RefusedError, Reply, Spent, answer, dump
from tests.upstream.scripts import Script

MADE_AT: Final = 1_700_000_000
FINGERPRINT: Final = "fp_0123456789"
DIMENSIONS: Final = 8
MAX_CHOICES: Final = 8
MAX_TOKENS: Final = 100_000
DONE: Final = Event(b"data: [DONE]\n\n")

_TYPES: Final[Mapping[int, tuple[str, str | None]]] = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
_serial = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One choice: its tokens, why it ended, and the tool it calls with them."""

    tokens: Sequence[str]
    finish: str
    tool: str | None = None
    thought: Sequence[str] = ()

    @property
    def count(self) -> int:
        return len(self.tokens) + len(self.thought)


def error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> bytes:
    kind, usual_code = _TYPES.get(status, ("server_error", None))
    if code == "insufficient_quota":
        kind = code
    return dump(
        {
            "error": {
                "message": message,
                "type": kind,
                "param": param,
                "code": code or usual_code,
            }
        }
    )


def models(names: Sequence[str], script: Script) -> Reply:
    more = UNKNOWN if script.unknown_fields else {}
    return answer({"object": "list", "data": [model(name) for name in names], **more})


def model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": MADE_AT, "owned_by": "upstream"}


def chat(body: Mapping[str, Any], script: Script) -> Reply:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedError(400, "Missing required parameter: 'messages'.", param="messages")
    choices = [_say(body, script, number) for number in range(_choices(body))]
    spent = Spent.of(text.count_messages(messages), sum(each.count for each in choices), script)
    head = _head(body, "chatcmpl", "chat.completion", script)
    if body.get("stream"):
        events = list(_chat_events(head, body, choices, _usage(spent, choices, script)))
        return Reply(events=events, content_type=EVENTS, spent=spent)
    told = [
        {
            "index": number,
            "message": _message(said),
            "logprobs": _logprobs(said.tokens, body),
            "finish_reason": said.finish,
        }
        for number, said in enumerate(choices)
    ]
    usage = _usage(spent, choices, script)
    return answer(
        {**head, "choices": told, **({} if usage is None else {"usage": usage})}, spent=spent
    )


def completion(body: Mapping[str, Any], script: Script) -> Reply:
    prompt = body.get("prompt")
    prompts = prompt if isinstance(prompt, list) else [prompt or ""]
    choices = [
        _say({**body, "messages": [{"content": str(each)}]}, script, number)
        for each in prompts
        for number in range(_choices(body))
    ]
    count = sum(text.count_text(str(each)) for each in prompts)
    spent = Spent.of(count, sum(each.count for each in choices), script)
    head = _head(body, "cmpl", "text_completion", script)
    usage = _usage(spent, choices, script)
    if body.get("stream"):
        events = list(_completion_events(head, body, choices, usage))
        return Reply(events=events, content_type=EVENTS, spent=spent)
    told = [
        {
            "index": number,
            "text": "".join(said.tokens),
            "logprobs": None,
            "finish_reason": said.finish,
        }
        for number, said in enumerate(choices)
    ]
    return answer(
        {**head, "choices": told, **({} if usage is None else {"usage": usage})}, spent=spent
    )


def embeddings(body: Mapping[str, Any], script: Script) -> Reply:
    given = body.get("input")
    texts = given if isinstance(given, list) else [given]
    if not texts or texts == [None]:
        raise RefusedError(400, "Missing required parameter: 'input'.", param="input")
    size = body.get("dimensions") or DIMENSIONS
    spent = Spent.of(sum(text.count_text(str(each)) for each in texts), 0, script)
    vectors = [_vector(str(each), size) for each in texts]
    told = [
        {
            "object": "embedding",
            "index": number,
            "embedding": _packed(vector) if body.get("encoding_format") == "base64" else vector,
        }
        for number, vector in enumerate(vectors)
    ]
    more = UNKNOWN if script.unknown_fields else {}
    usage = (
        {}
        if script.usage == "none"
        else {"usage": {"prompt_tokens": spent.told_prompt, "total_tokens": spent.told_prompt}}
    )
    return answer(
        {"object": "list", "data": told, "model": body["model"], **usage, **more}, spent=spent
    )


def _choices(body: Mapping[str, Any]) -> int:
    count = body.get("n") or 1
    if not isinstance(count, int) or not 1 <= count <= MAX_CHOICES:
        raise RefusedError(400, f"'n' is from 1 to {MAX_CHOICES}.", param="n")
    return count


def _head(body: Mapping[str, Any], prefix: str, kind: str, script: Script) -> dict[str, Any]:
    suffix = ".chunk" if body.get("stream") and kind == "chat.completion" else ""
    return {
        "id": f"{prefix}-{next(_serial):024d}",
        "object": kind + suffix,
        "created": int(time.time()),
        "model": body["model"],
        "system_fingerprint": FINGERPRINT,
        **({} if prefix == "cmpl" else {"service_tier": "default"}),
        **(UNKNOWN if script.unknown_fields else {}),
    }


def _say(body: Mapping[str, Any], script: Script, number: int) -> Said:
    """Make up a choice: the same for the same seed, prompt and number."""
    messages = body["messages"]
    seed = f"{body.get('seed')}/{text.text_of(messages[-1].get('content'))}/{number}"
    thought = text.words(seed + "?", script.reasoning_tokens)
    limit = _limit(body)
    tool = _called_tool(body)
    if tool is not None:
        arguments = json.dumps(text.sample(tool.get("parameters") or {}))
        return Said(
            tokens=text.pieces(arguments), finish="tool_calls", tool=tool["name"], thought=thought
        )
    tokens = _formatted(body) or text.words(seed, script.tokens)
    stops = body.get("stop") or []
    tokens, _ = text.cut_at(tokens, [stops] if isinstance(stops, str) else stops)
    is_long = len(tokens) + len(thought) > limit
    if is_long:
        thought = thought[:limit]
        tokens = tokens[: limit - len(thought)]
    return Said(tokens=tokens, finish="length" if is_long else "stop", thought=thought)


def _limit(body: Mapping[str, Any]) -> int:
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return limit if isinstance(limit, int) else MAX_TOKENS


def _called_tool(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Choose the tool: the one asked for, or the first unless one has answered already."""
    functions = [
        each["function"] for each in body.get("tools") or [] if each.get("type") == "function"
    ]
    choice = body.get("tool_choice", "auto")
    if not functions or choice == "none":
        return None
    if isinstance(choice, dict):
        wanted = choice.get("function", {}).get("name")
        return next((each for each in functions if each["name"] == wanted), None)
    is_answered = body["messages"][-1].get("role") == "tool"
    return None if is_answered and choice == "auto" else functions[0]


def _formatted(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Make up what a response format asks for, or nothing where it asks for none."""
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        schema = wanted.get("json_schema", {}).get("schema") or {}
        return text.pieces(json.dumps(text.sample(schema)))
    if wanted.get("type") == "json_object":
        return text.pieces(json.dumps({"answer": "river"}))
    return ()


def _message(said: Said) -> dict[str, Any]:
    content = "".join(said.tokens)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content,
        "refusal": None,
        "annotations": [],
    }
    if said.thought:
        message["reasoning_content"] = "".join(said.thought)
    if said.tool is not None:
        message["content"] = None
        message["tool_calls"] = [
            {
                "id": f"call_{next(_serial):016d}",
                "type": "function",
                "function": {"name": said.tool, "arguments": content},
            }
        ]
    return message


def _logprobs(tokens: Sequence[str], body: Mapping[str, Any]) -> dict[str, Any] | None:
    if not body.get("logprobs"):
        return None
    others = body.get("top_logprobs") or 0
    return {"content": [_logprob(token, others) for token in tokens], "refusal": None}


def _logprob(token: str, others: int) -> dict[str, Any]:
    def one(what: str, value: float) -> dict[str, Any]:
        return {"token": what, "logprob": value, "bytes": list(what.encode())}

    top = [
        one(token if rank == 0 else f"{token}{rank}", -0.25 * (rank + 1)) for rank in range(others)
    ]
    return {**one(token, -0.25), "top_logprobs": top}


def _usage(spent: Spent, choices: Sequence[Said], script: Script) -> dict[str, Any] | None:
    if script.usage == "none":
        return None
    return {
        "prompt_tokens": spent.told_prompt,
        "completion_tokens": spent.told_completion,
        "total_tokens": spent.told_total,
        "prompt_tokens_details": {
            "cached_tokens": min(script.cached_tokens, spent.prompt),
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": sum(len(said.thought) for said in choices),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _event(value: object, tokens: int = 0) -> Event:
    return Event(b"data: " + dump(value) + b"\n\n", tokens)


def _chat_events(
    head: Mapping[str, Any],
    body: Mapping[str, Any],
    choices: Sequence[Said],
    usage: Mapping[str, Any] | None,
) -> Iterator[Event]:
    is_asked = (body.get("stream_options") or {}).get("include_usage") is True
    is_told = is_asked and usage is not None
    tail = {"usage": None} if is_told else {}

    def chunk(number: int, delta: object, *, finish: str | None = None, token: str = "") -> Event:
        choice = {
            "index": number,
            "delta": delta,
            "logprobs": _logprobs([token], body) if token else None,
            "finish_reason": finish,
        }
        return _event({**head, "choices": [choice], **tail}, 1 if token else 0)

    for number, said in enumerate(choices):
        yield chunk(number, _first_delta(said))
    for number, token in _in_turn([said.thought for said in choices]):
        yield chunk(number, {"reasoning_content": token}, token=token)
    for number, token in _in_turn([said.tokens for said in choices]):
        yield chunk(number, _delta(choices[number], token), token=token)
    for number, said in enumerate(choices):
        yield chunk(number, {}, finish=said.finish)
    if is_told:
        yield _event({**head, "choices": [], "usage": usage})
    yield DONE


def failure() -> Event:
    """Say in the middle of a stream that it goes no further."""
    return Event(b"data: " + error(503, "The server is overloaded.") + b"\n\n")


def _in_turn(rows: Sequence[Sequence[str]]) -> Iterator[tuple[int, str]]:
    """List a token of each choice, then the next of each, as a real one interleaves them."""
    for column in itertools.zip_longest(*rows):
        yield from ((number, token) for number, token in enumerate(column) if token is not None)


def _first_delta(said: Said) -> dict[str, Any]:
    delta: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    if said.tool is not None:
        call = {"name": said.tool, "arguments": ""}
        delta["content"] = None
        delta["tool_calls"] = [
            {"index": 0, "id": f"call_{next(_serial):016d}", "type": "function", "function": call}
        ]
    return delta


def _delta(said: Said, token: str) -> dict[str, Any]:
    if said.tool is None:
        return {"content": token}
    return {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}


def _completion_events(
    head: Mapping[str, Any],
    body: Mapping[str, Any],
    choices: Sequence[Said],
    usage: Mapping[str, Any] | None,
) -> Iterator[Event]:
    for number, said in enumerate(choices):
        for token in said.tokens:
            choice = {"index": number, "text": token, "logprobs": None, "finish_reason": None}
            yield _event({**head, "choices": [choice]}, 1)
        last = {"index": number, "text": "", "logprobs": None, "finish_reason": said.finish}
        yield _event({**head, "choices": [last]})
    if (body.get("stream_options") or {}).get("include_usage") is True and usage is not None:
        yield _event({**head, "choices": [], "usage": usage})
    yield DONE


def _vector(of: str, size: int) -> list[float]:
    raw = [len(word) * (number + 1) % 17 + 1 for number, word in enumerate(text.words(of, size))]
    length = sum(value * value for value in raw) ** 0.5
    return [value / length for value in raw]


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
