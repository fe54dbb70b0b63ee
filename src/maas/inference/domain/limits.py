"""What a deployment allows of one call, and what surely no model of it can take."""

from collections.abc import Iterable, Sequence
from typing import Final

from maas.inference.domain.call import Ask
from maas.inference.domain.failures import UnknownModelError
from maas.inference.domain.route import Route
from maas.shared.domain.errors import InvalidInputError, PayloadTooLargeError
from maas.shared.domain.principal import KeyLimits

MOST_CHARACTERS_PER_TOKEN: Final = 8
"""Prose has four or fewer. What is shorter than this is left to the upstream to judge."""


class BodyOverLimitError(PayloadTooLargeError):
    code = "body-over-limit"
    title = "The deployment takes no request of this size"

    def __init__(self, limit: int) -> None:
        super().__init__(f"This deployment takes requests of up to {limit} bytes.")


class OutputOverLimitError(InvalidInputError):
    code = "output-over-limit"
    title = "The deployment gives no answer of this length"

    def __init__(self, limit: int, field: str) -> None:
        super().__init__(f"This deployment gives up to {limit} tokens.", loc=("body", field))


class ChoicesOverLimitError(InvalidInputError):
    code = "choices-over-limit"
    title = "The deployment gives no so many answers at once"

    def __init__(self, limit: int, field: str) -> None:
        super().__init__(f"This deployment gives up to {limit} at once.", loc=("body", field))


class ContextLengthExceededError(InvalidInputError):
    code = "context-length-exceeded"
    title = "The request is longer than the model's context"

    def __init__(self, context_length: int, field: str) -> None:
        super().__init__(
            f"The model's context is {context_length} tokens, which prompt and answer share: "
            "shorten the prompt, or ask for fewer tokens.",
            loc=("body", field),
        )


def expect_allowed(limits: KeyLimits | None, name: str) -> None:
    """Refuse a model that the caller's key is not for, as if there were none.

    Raises:
        UnknownModelError: the key names its models, and this is none of them.
    """
    if limits is not None and not limits.allows_model(name):
        raise UnknownModelError


def expect_within(route: Route, ask: Ask, *, body_bytes: int) -> None:
    """Refuse what the deployment does not allow, and what fits into no context of its targets.

    Raises:
        BodyOverLimitError: the request is too large.
        OutputOverLimitError: it asks for more tokens than the deployment gives.
        ChoicesOverLimitError: it asks for more answers.
        ContextLengthExceededError: each target's context is shorter than prompt and answer.
    """
    limits = route.limits
    if limits.max_body_bytes is not None and body_bytes > limits.max_body_bytes:
        raise BodyOverLimitError(limits.max_body_bytes)
    if (
        limits.max_output_tokens is not None
        and ask.most_output is not None
        and ask.most_output > limits.max_output_tokens
    ):
        raise OutputOverLimitError(limits.max_output_tokens, _output_field(ask))
    if limits.max_choices is not None and ask.choices > limits.max_choices:
        raise ChoicesOverLimitError(limits.max_choices, _choices_field(ask))
    _expect_fit(route, ask, body_bytes=body_bytes)


def _expect_fit(route: Route, ask: Ask, *, body_bytes: int) -> None:
    longest = _longest_context(route)
    if longest is None:
        return
    asked = ask.most_output or 0
    # Characters are no more than bytes, and tokens given as numbers no more than half of them, so
    # most requests are done here, uncounted.
    if body_bytes // 2 + asked <= longest:
        return
    if least_input(ask) + asked > longest:
        raise ContextLengthExceededError(longest, _PROMPTS[ask.kind])


def _longest_context(route: Route) -> int | None:
    longest = 0
    for target in route.targets:
        if target.context_length is None:
            return None
        longest = max(longest, target.context_length)
    return longest or None


def least_input(ask: Ask) -> int:
    """Tell how many tokens the prompt has at least; of several prompts, the longest."""
    prompt = ask.body.get(_PROMPTS[ask.kind])
    if ask.kind == "chat":
        return sum(_texts_of(prompt)) // MOST_CHARACTERS_PER_TOKEN
    if isinstance(prompt, list) and not _is_tokens(prompt):
        return max(map(_least, prompt), default=0)
    return _least(prompt)


_PROMPTS: Final = {"chat": "messages", "completions": "prompt", "embeddings": "input"}


def _least(prompt: object) -> int:
    if isinstance(prompt, str):
        return len(prompt) // MOST_CHARACTERS_PER_TOKEN
    if isinstance(prompt, list) and _is_tokens(prompt):
        return len(prompt)
    return 0


def _is_tokens(prompt: Sequence[object]) -> bool:
    return bool(prompt) and all(type(each) is int for each in prompt)


def _texts_of(messages: object) -> Iterable[int]:
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            yield len(content)
        for part in content if isinstance(content, list) else ():
            text = part.get("text") if isinstance(part, dict) else None
            if isinstance(text, str):
                yield len(text)


def _output_field(ask: Ask) -> str:
    field = "max_completion_tokens"
    return field if ask.body.get(field) is not None else "max_tokens"


def _choices_field(ask: Ask) -> str:
    return "best_of" if ask.body.get("best_of") == ask.choices else "n"
