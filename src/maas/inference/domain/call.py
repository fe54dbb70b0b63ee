"""A call, as far as routing and billing need to know it."""

from dataclasses import dataclass, field
from typing import Final

from maas.inference.public import CallKind

REWRITTEN: Final = ("model", "max_completion_tokens", "max_tokens", "stream_options")
"""What is told to a target in other words than the caller's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """What a call used. Cached tokens are part of the input; reasoning comes beside the output."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output + self.reasoning


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a request asks for.

    `body` is the parsed request, which nobody changes. `most_input` is no less than the tokens its
    prompt can have, and `likely_input` how many it has if nobody counts them; `most_output` is what
    one answer may have by the caller's own word, and `choices` how many answers there are. A long
    body is `written` already: its members, but for those of `REWRITTEN`.
    """

    kind: CallKind
    model: str
    body: dict[str, object]
    most_input: int
    likely_input: int
    most_output: int | None
    choices: int = 1
    is_stream: bool = False
    wants_usage: bool = False
    written: bytes | None = field(default=None, repr=False)
