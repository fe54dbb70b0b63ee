"""What OpenAPI says of the routes under `/v1`: examples, and schemas that leave the rest open."""

from collections.abc import Mapping
from typing import Any, Final

_TEXT: Final = {"type": "string"}
_COUNT: Final = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}
_FLAG: Final = {"anyOf": [{"type": "boolean"}, {"type": "null"}]}
_MODEL_FIELD: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": 256,
    "description": "A deployment's name.",
}
_STREAM_OPTIONS: Final = {
    "anyOf": [
        {
            "type": "object",
            "properties": {"include_usage": {"type": "boolean"}},
            "additionalProperties": True,
        },
        {"type": "null"},
    ]
}
_OF_TEXT: Final = {
    "stream": _FLAG,
    "stream_options": _STREAM_OPTIONS,
    "max_tokens": _COUNT,
    "n": _COUNT,
}
_USAGE: Final = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
_CHAT_ANSWER: Final = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1795000000,
    "model": "gemma-3-270m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Good morning!"},
            "finish_reason": "stop",
        }
    ],
    "usage": _USAGE,
}
_CHUNK: Final = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795000000,'
    '"model":"gemma-3-270m","choices":[{"index":0,"delta":{"content":"Good"},'
    '"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
_COMPLETION_ANSWER: Final = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1795000000,
    "model": "gemma-3-270m",
    "choices": [{"index": 0, "text": " morning!", "logprobs": None, "finish_reason": "stop"}],
    "usage": _USAGE,
}
_COMPLETION_CHUNK: Final = (
    'data: {"id":"cmpl-1","object":"text_completion","created":1795000000,'
    '"model":"gemma-3-270m","choices":[{"index":0,"text":" morning","logprobs":null,'
    '"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
_VECTORS: Final = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.12, -0.5]}],
    "model": "gemma-3-270m",
    "usage": {"prompt_tokens": 2, "total_tokens": 2},
}
_MODEL: Final = {
    "id": "gemma-3-270m",
    "object": "model",
    "created": 1795000000,
    "owned_by": "01900000-0000-7000-8000-000000000001",
}
_MODEL_SCHEMA: Final = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": {**_TEXT, "description": "The deployment's name."},
        "object": {"const": "model"},
        "created": {"type": "integer", "description": "Seconds since 1970."},
        "owned_by": {**_TEXT, "description": "The id of the tenant whose deployment it is."},
    },
}
_HEADERS: Final = {
    "x-maas-deployment": {
        "description": "The id of the deployment that the name led to.",
        "schema": {"type": "string", "format": "uuid"},
    },
    "x-maas-cache": {
        "description": "Of a plain answer, where the deployment keeps some: `hit` or `miss`.",
        "schema": {"type": "string", "enum": ["hit", "miss"]},
    },
}
_REPLAY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A key of your own for this call, good for 24 hours: sent again under it, the "
    "call is answered 409 `already-processed` with the first one's id, and charged once. A call "
    "that cost nothing may be sent again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_PASSING: Final = """
`model` is the name of a deployment: of your tenant, granted to it, or public. Everything else goes
to what answers there as it is, fields that only its supplier knows among them, and its answer comes
back as it is. What the call used is charged to your quotas; `X-Request-ID` names its receipt.

Errors are in OpenAI's form, with OpenAI's codes where clients look for them.
"""
_STREAMING: Final = """
With `stream: true` the answer comes as server-sent events, each as soon as it is there; the end is
`data: [DONE]`. An answer that breaks off ends with an event that has an `error`, and no `[DONE]`.
Whoever hangs up pays for what was generated until then.

Without a limit on the tokens of an answer, one is set: the model's own, the deployment's or the
server's, cut to what your quotas cover.
"""


def _body(
    properties: Mapping[str, object], required: list[str], example: Mapping[str, object]
) -> dict[str, object]:
    return {
        "parameters": [_REPLAY_KEY],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": required,
                        "properties": {"model": _MODEL_FIELD, **properties},
                        "additionalProperties": True,
                    },
                    "examples": {"call": {"value": example}},
                }
            },
        },
    }


def _answers(example: Mapping[str, object], chunk: str | None = None) -> dict[int | str, Any]:
    content: dict[str, object] = {
        "application/json": {
            "schema": {"type": "object", "additionalProperties": True},
            "examples": {"answer": {"value": example}},
        }
    }
    if chunk is not None:
        content["text/event-stream"] = {
            "schema": {"type": "string"},
            "examples": {"stream": {"value": chunk}},
        }
    return {200: {"description": "The answer.", "content": content, "headers": _HEADERS}}


CHAT: Final[dict[str, Any]] = {
    "summary": "Complete a chat",
    "description": _PASSING + _STREAMING,
    "openapi_extra": _body(
        {
            "messages": {"type": "array", "items": {"type": "object"}, "minItems": 1},
            "max_completion_tokens": _COUNT,
            **_OF_TEXT,
        },
        ["model", "messages"],
        {"model": "gemma-3-270m", "messages": [{"role": "user", "content": "Say good morning."}]},
    ),
    "responses": _answers(_CHAT_ANSWER, _CHUNK),
}

COMPLETIONS: Final[dict[str, Any]] = {
    "summary": "Complete a text",
    "description": _PASSING
    + _STREAMING
    + "\nHere an answer has 16 tokens if nobody says more, as it always had at OpenAI's.\n",
    "openapi_extra": _body(
        {
            "prompt": {
                "anyOf": [_TEXT, {"type": "array", "items": {}}],
                "description": "A text, tokens, or a list of either.",
            },
            "best_of": _COUNT,
            **_OF_TEXT,
        },
        ["model", "prompt"],
        {"model": "gemma-3-270m", "prompt": "Good", "max_tokens": 8},
    ),
    "responses": _answers(_COMPLETION_ANSWER, _COMPLETION_CHUNK),
}

EMBEDDINGS: Final[dict[str, Any]] = {
    "summary": "Make embeddings",
    "description": _PASSING,
    "openapi_extra": _body(
        {
            "input": {
                "anyOf": [_TEXT, {"type": "array", "items": {}}],
                "description": "A text, tokens, or a list of either.",
            }
        },
        ["model", "input"],
        {"model": "gemma-3-270m", "input": ["Good morning."]},
    ),
    "responses": _answers(_VECTORS),
}

MODELS: Final[dict[str, Any]] = {
    "summary": "List what you can call",
    "description": "The deployments that your key, or you, can call, by name.",
    "responses": {
        200: {
            "description": "All of them, on one page.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["object", "data"],
                        "properties": {
                            "object": {"const": "list"},
                            "data": {"type": "array", "items": _MODEL_SCHEMA},
                        },
                    },
                    "examples": {"models": {"value": {"object": "list", "data": [_MODEL]}}},
                }
            },
        }
    },
}

MODEL: Final[dict[str, Any]] = {
    "summary": "Get what a name leads to",
    "description": "One of the deployments that `GET /v1/models` lists.",
    "openapi_extra": {
        "parameters": [
            {
                "name": "name",
                "in": "path",
                "required": True,
                "description": "A deployment's name, which may hold slashes.",
                "schema": {"type": "string"},
            }
        ]
    },
    "responses": {
        200: {
            "description": "It.",
            "content": {
                "application/json": {
                    "schema": _MODEL_SCHEMA,
                    "examples": {"model": {"value": _MODEL}},
                }
            },
        }
    },
}
