"""How long a prompt likely is, where nobody counted it: what is booked then is marked estimated."""

from collections.abc import Mapping
from typing import Final

from maas.inference.domain.call import Ask
from maas.inference.domain.estimates import count_text

TOKENS_A_MESSAGE: Final = 4
"""Roles and separators around each message."""

TOKENS_A_PART: Final = 800
"""Of a picture, sound or file, about."""

_PROMPTS: Final = {"chat": "messages", "completions": "prompt", "embeddings": "input"}


def count_prompt(ask: Ask) -> int:
    """Estimate a request's input, never above the most that it can be."""
    prompt = ask.body.get(_PROMPTS[ask.kind])
    counted = _count_messages(prompt) if ask.kind == "chat" else _count_input(prompt)
    return min(ask.most_input, counted)


def _count_messages(messages: object) -> int:
    if not isinstance(messages, list):
        return 0
    return sum(_count_message(each) for each in messages if isinstance(each, dict))


def _count_message(message: Mapping[str, object]) -> int:
    content = message.get("content")
    if isinstance(content, str):
        return TOKENS_A_MESSAGE + count_text(content)
    if not isinstance(content, list):
        return TOKENS_A_MESSAGE
    return TOKENS_A_MESSAGE + sum(map(_count_part, content))


def _count_part(part: object) -> int:
    text = part.get("text") if isinstance(part, dict) else None
    return count_text(text) if isinstance(text, str) else TOKENS_A_PART


def _count_input(prompt: object) -> int:
    """Count one prompt or several, each a text or a list of tokens."""
    if isinstance(prompt, str):
        return count_text(prompt)
    if not isinstance(prompt, list):
        return 0
    if prompt and isinstance(prompt[0], int):
        return len(prompt)
    return sum(map(_count_input, prompt))
