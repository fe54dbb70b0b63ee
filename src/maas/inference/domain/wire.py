"""How a call is spelled for a supplier, and what of its answer routing and billing need to know."""

from dataclasses import dataclass
from typing import Protocol

from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.route import Endpoint
from maas.shared.domain.errors import InvalidInputError


class NotTakenError(InvalidInputError):
    """Nothing of this target's wire says what was asked; another target may."""

    code = "not-taken-by-target"
    title = "The model takes no such request"


class BrokenStreamError(Exception):
    """A stream ended before its answer was whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What an upstream says about the caller's own request, in OpenAI's words."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None

    def __post_init__(self) -> None:
        # JSON may have halves of characters, which nobody can write.
        for name in ("message", "param", "code"):
            told = getattr(self, name)
            if told is not None:
                object.__setattr__(self, name, told.encode("utf-8", "replace").decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A plain answer: what the caller gets, and what it used.

    `counts` is the upstream's own word, `seen` an estimate of what came.
    """

    body: bytes
    counts: TokenCounts | None
    seen: TokenCounts


class WireStream(Protocol):
    """One streamed answer on its way; `counts` are of the whole answer, `seen` of what came."""

    @property
    def counts(self) -> TokenCounts | None: ...

    @property
    def seen(self) -> TokenCounts: ...

    @property
    def is_whole(self) -> bool:
        """Whether the answer's end has come: what is cut after that is no loss."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the stream's own end has come: nothing follows, however long it stays open."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """Take what the upstream sent, split anywhere; tell what the caller gets of it now.

        The terminator is kept back until `end`.

        Raises:
            BrokenStreamError: it is no stream of this wire, or an error came in it.
        """
        ...

    def end(self) -> bytes:
        """Tell what the caller gets last: what is left, and the terminator.

        Raises:
            BrokenStreamError: the stream was cut before the answer was whole.
        """
        ...


class Wire(Protocol):
    """A supplier's wire format, both ways. It holds nothing of any call."""

    def spell(self, ask: Ask, endpoint: Endpoint, *, most_output: int | None) -> bytes:
        """Write the upstream's request; one answer may have `most_output` tokens.

        Raises:
            NotTakenError: the wire cannot say this.
        """
        ...

    def read(self, ask: Ask, body: bytes) -> Told:
        """Read a plain answer with a status of success.

        Raises:
            BrokenStreamError: it is no answer of this wire.
        """
        ...

    def stream(self, ask: Ask) -> WireStream: ...

    def refusal(self, status: int, body: bytes) -> Refusal | None:
        """Read an upstream's 400, 413 or 422; `None` if it tells nothing about the request."""
        ...
