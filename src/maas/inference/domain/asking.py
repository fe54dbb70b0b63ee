"""Reading what a request asks for, as far as routing and billing need it.

The rest is not looked at: what is wrong with it is for whoever answers to say.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from maas.inference.domain.call import REWRITTEN, Ask
from maas.inference.domain.estimates import most_input
from maas.inference.domain.long_json import write_members
from maas.inference.domain.prompts import count_prompt
from maas.inference.public import CallKind
from maas.shared.domain.errors import InvalidInputError

MOST_CHOICES: Final = 2_048
MOST_OUTPUT: Final = 10**9
MAX_NAME_CHARS: Final = 256

DEFAULT_COMPLETION_TOKENS: Final = 16
"""What a completion has where nobody says more: the callers of that API count on it."""


class InvalidCallError(InvalidInputError):
    code = "invalid-call"
    title = "The request cannot be called with"

    def __init__(self, detail: str, field: str) -> None:
        super().__init__(detail, loc=("body", field))


def read_ask(kind: CallKind, body: object) -> Ask:
    """Read a request that was parsed.

    Raises:
        InvalidCallError: a field that says who answers, how often or how long is not as it should.
    """
    if not isinstance(body, dict):
        raise InvalidCallError("Send a JSON object.", "model")
    is_stream = kind != "embeddings" and _read_flag(body, "stream")
    most = most_input(body)
    return Ask(
        kind=kind,
        model=_read_model(body),
        body=body,
        most_input=most,
        likely_input=min(most, count_prompt(body)),
        most_output=None if kind == "embeddings" else _read_most_output(kind, body),
        choices=_read_choices(kind, body),
        is_stream=is_stream,
        wants_usage=is_stream and _read_wants_usage(body),
    )


def read_long_ask(kind: CallKind, body: object) -> Ask:
    """Read a long request, and write what of it is passed on, away from the event loop.

    Raises:
        InvalidCallError: as `read_ask`.
    """
    ask = read_ask(kind, body)
    passed = {name: value for name, value in ask.body.items() if name not in REWRITTEN}
    return replace(ask, written=write_members(passed))


def _read_model(body: Mapping[str, object]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MAX_NAME_CHARS:
        raise InvalidCallError(
            "Name the model: `GET /v1/models` lists those you can call.", "model"
        )
    return model


def _read_flag(body: Mapping[str, object], field: str) -> bool:
    value = body.get(field)
    if value is None or isinstance(value, bool):
        return value is True
    raise InvalidCallError("It is true or false.", field)


def _read_count(body: Mapping[str, object], field: str, most: int) -> int | None:
    value = body.get(field)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        raise InvalidCallError(f"It is a whole number from 1 to {most}.", field)
    return value


def _read_most_output(kind: CallKind, body: Mapping[str, object]) -> int | None:
    """Read how long an answer may be: of two fields that say it, the larger counts for both."""
    told = [
        each
        for field in ("max_completion_tokens", "max_tokens")
        if (each := _read_count(body, field, MOST_OUTPUT)) is not None
    ]
    if not told:
        return DEFAULT_COMPLETION_TOKENS if kind == "completions" else None
    return max(told)


def _read_choices(kind: CallKind, body: Mapping[str, object]) -> int:
    """Read how many answers are made, of which `best_of` throws some away again."""
    if kind == "embeddings":
        return 1
    choices = _read_count(body, "n", MOST_CHOICES) or 1
    if kind == "chat":
        return choices
    choices = max(choices, _read_count(body, "best_of", MOST_CHOICES) or 1)
    return choices * _count_prompts(body.get("prompt"))


def _count_prompts(prompt: object) -> int:
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        return len(prompt)
    return 1


def _read_wants_usage(body: Mapping[str, object]) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise InvalidCallError("It is an object.", "stream_options")
    return options.get("include_usage") is True
