"""Anthropic's wire: a chat in OpenAI's words on our side, messages and events on theirs."""

from collections.abc import Callable
from dataclasses import dataclass

from typing_extensions import override

from maas.inference.domain.anthropic_answer import read_answer, read_refusal
from maas.inference.domain.anthropic_request import spell
from maas.inference.domain.anthropic_stream import AnthropicStream
from maas.inference.domain.call import Ask
from maas.inference.domain.route import Endpoint
from maas.inference.domain.wire import NotTakenError, Refusal, Told, Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class AnthropicWire(Wire):
    """`now` tells the seconds since 1970: OpenAI's answers say when they were made."""

    now: Callable[[], int]

    @override
    def spell(self, ask: Ask, endpoint: Endpoint, *, most_output: int | None) -> bytes:
        if ask.kind != "chat":
            raise NotTakenError("A model behind Anthropic's API takes chats only.", loc=("model",))
        return spell(ask, endpoint.model, most_output=most_output)

    @override
    def read(self, ask: Ask, body: bytes) -> Told:
        return read_answer(ask, body, made_at=self.now())

    @override
    def stream(self, ask: Ask) -> AnthropicStream:
        return AnthropicStream(ask=ask, made_at=self.now())

    @override
    def refusal(self, status: int, body: bytes) -> Refusal | None:
        return read_refusal(status, body)
