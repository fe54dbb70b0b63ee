"""What a test can command: how the upstream answers a model, or whoever calls under a name."""

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Usage = Literal["honest", "more", "less", "none", "nonsense"]
Body = Literal["html", "invalid-json", "other-json", "empty", "huge", "no-http"]
Cut = Literal["close", "reset"]

PIECES_OF_A_BODY: Final = 8
"""A plain body is sent in so many, where a command counts chunks."""


class Script(BaseModel):
    """One way to answer. Times are seconds; chunks are events of a stream, or parts of a body.

    `status` fails in the form of the API that was called. `cut_after=0` cuts before the head, with
    an end of the stream or a reset. `stall_after=0` never sends a head. `fail_after` tells an error
    in a stream, in the words of the API, and ends it there. `echo_key` quotes the key whole, in the
    message and in a header, which is worse than any supplier does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: int | None = None
    code: str | None = None
    retry_after: int | None = None
    echo_key: bool = False
    redirect: str | None = None
    body: Body | None = None
    content_type: str | None = None
    head_delay: float = 0
    chunk_delay: float = 0
    stall_after: int | None = None
    cut_after: int | None = None
    fail_after: int | None = Field(None, ge=1)
    cut: Cut = "close"
    piece_bytes: int | None = Field(None, ge=1)
    usage: Usage = "honest"
    unknown_fields: bool = False
    tokens: int = Field(16, ge=0)
    reasoning_tokens: int = Field(0, ge=0)
    cached_tokens: int = Field(0, ge=0)
    calls_at_once: int = Field(1, ge=1)
    times: int | None = Field(None, ge=1)
    """For so many calls; then it is forgotten."""

    @property
    def is_timed(self) -> bool:
        """Tell whether the answer cannot be written at once."""
        return bool(
            self.head_delay
            or self.chunk_delay
            or self.piece_bytes
            or self.stall_after is not None
            or self.cut_after is not None
            or self.body in {"huge", "no-http"}
        )


HONEST: Final = Script()

PRESETS: Final[Mapping[str, Script]] = {
    "says-401": Script(status=401),
    "says-401-and-the-key": Script(status=401, echo_key=True),
    "says-402": Script(status=402, code="insufficient_quota"),
    "says-403": Script(status=403),
    "says-404": Script(status=404),
    "says-429": Script(status=429, retry_after=7),
    "says-429-quota": Script(status=429, code="insufficient_quota"),
    "says-500": Script(status=500),
    "says-503": Script(status=503, retry_after=3),
    "says-529": Script(status=529),
    "says-html": Script(body="html"),
    "says-html-404": Script(status=404, body="html"),
    "says-invalid-json": Script(body="invalid-json"),
    "says-other-json": Script(body="other-json"),
    "says-nothing": Script(body="empty"),
    "says-too-much": Script(body="huge"),
    "says-too-much-404": Script(status=404, body="huge"),
    "speaks-no-http": Script(body="no-http"),
    "mistakes-its-type": Script(content_type="text/plain"),
    "redirects": Script(redirect="https://elsewhere.test/v1/models?token=secret"),
    "redirects-inwards": Script(redirect="http://169.254.169.254/latest/meta-data/"),
    "takes-a-second": Script(head_delay=1),
    "never-answers": Script(stall_after=0),
    "stalls": Script(stall_after=3),
    "drips": Script(piece_bytes=1, chunk_delay=0.05),
    "splits-events": Script(piece_bytes=7),
    "hangs-up": Script(cut_after=0),
    "resets": Script(cut_after=0, cut="reset"),
    "breaks-off": Script(cut_after=3),
    "breaks-off-by-reset": Script(cut_after=3, cut="reset"),
    "bills-more": Script(usage="more"),
    "bills-less": Script(usage="less"),
    "bills-nothing": Script(usage="none"),
    "bills-nonsense": Script(usage="nonsense"),
    "knows-more-fields": Script(unknown_fields=True),
    "fails-midway": Script(fail_after=5),
    "calls-two-at-once": Script(calls_at_once=2),
    "thinks": Script(reasoning_tokens=5),
}
"""Known by name from the start, as a model or under `/as/{name}`."""


class Scripts:
    """What was commanded by name; `*` is for everybody who has none of his own."""

    def __init__(self) -> None:
        self._by_name: dict[str, Script] = {}
        self._left: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name or name in PRESETS

    def put(self, name: str, script: Script) -> None:
        self._by_name[name] = script
        if script.times is not None:
            self._left[name] = script.times

    def remove(self, name: str) -> None:
        self._by_name.pop(name, None)

    def take(self, *names: str) -> Script:
        """Read the first of these that there is, and count it."""
        for name in (*names, "*"):
            script = self._by_name.get(name) or PRESETS.get(name)
            if script is None:
                continue
            if script.times is not None:
                self._left[name] -= 1
                if self._left[name] == 0:
                    self.remove(name)
            return script
        return HONEST
