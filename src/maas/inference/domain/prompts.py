"""How long a prompt likely is, where nobody counted it: what is booked then is marked estimated."""

from collections.abc import Iterable, Mapping
from typing import Final

from maas.inference.domain.estimates import count_text

TOKENS_A_MESSAGE: Final = 4
"""Roles and separators around each message."""

TOKENS_A_PART: Final = 800
"""Of a picture, sound or file, about."""

_NOT_READ: Final = frozenset(
    {
        "audio",
        "encoding_format",
        "function_call",
        "logit_bias",
        "metadata",
        "modalities",
        "model",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "stop",
        "stream_options",
        "tool_choice",
        "user",
        "verbosity",
    }
)
"""What is no part of a prompt; of any other field, known or not, a supplier may make one."""


def count_prompt(body: Mapping[str, object]) -> int:
    """Estimate a request's input."""
    counted = 0
    for name, value in body.items():
        if name in _NOT_READ or not isinstance(value, str | list | dict):
            continue
        if name == "messages":
            counted += _count_messages(value)
        elif name in {"prompt", "input"}:
            counted += _count_input(value)
        else:
            counted += _count_all((value,))
    return counted


def _count_messages(messages: object) -> int:
    if not isinstance(messages, list):
        return _count_all((messages,))
    return sum(_count_message(each) for each in messages if isinstance(each, dict))


def _count_message(message: Mapping[str, object]) -> int:
    content = message.get("content")
    if isinstance(content, list):
        counted = sum(map(_count_part, content))
    else:
        counted = count_text(content) if isinstance(content, str) else 0
    beside = [value for name, value in message.items() if name not in {"role", "content"}]
    return TOKENS_A_MESSAGE + counted + (_count_all(beside) if beside else 0)


def _count_part(part: object) -> int:
    text = part.get("text") if isinstance(part, dict) else None
    return count_text(text) if isinstance(text, str) else TOKENS_A_PART


def _count_input(prompt: object) -> int:
    """Count one prompt or several, each a text or a list of tokens."""
    if not isinstance(prompt, list):
        return _count_all((prompt,))
    if prompt and isinstance(prompt[0], int):
        return len(prompt)
    return sum(map(_count_input, prompt))


def _count_all(values: Iterable[object]) -> int:
    """Count all that is written in them, as a template that spells them out does."""
    counted, waiting = 0, [*values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            counted += count_text(value)
        elif isinstance(value, dict):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif value is not None:
            counted += count_text(str(value))
    return counted
