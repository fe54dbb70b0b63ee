"""Replies that are JSON because tools were offered, turned into OpenAI's calls and texts."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from maas.shared.domain.ids import new_id

_HEAD: Final = re.compile(
    r"""\s*\{\s*"(?:
        name"\s*:\s*"(?P<name>[\w-]+)"\s*,\s*"arguments"\s*:\s*(?=\{)
        | text"\s*:\s*"
    )""",
    re.VERBOSE,
)
# A character beyond the sixteenth bit is two escapes, which may come in two pieces.
_WHOLE: Final = re.compile(
    r"""(?:
        [^"\\]
        | \\[^u]
        | \\u(?![dD][89abAB])[0-9a-fA-F]{4}
        | \\u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[0-9a-fA-F]{4}|(?!\\u|\\?\Z))
    )*""",
    re.VERBOSE,
)


@dataclass(slots=True)
class ReplyReader:
    """Reads one reply, however it is cut; what it was cut off in is passed on so far."""

    _rest: str = ""
    _at: Literal["head", "call", "text", "end"] = "head"
    _is_call: bool = False
    _depth: int = 0
    _is_quoted: bool = False
    _is_escaped: bool = False

    def feed(self, piece: str) -> dict[str, Any]:
        """Give the delta that a piece brings, or an empty one."""
        self._rest += piece
        delta: dict[str, Any] = {}
        if self._at == "head" and (head := _HEAD.match(self._rest)):
            self._rest = self._rest[head.end() :]
            self._is_call = head["name"] is not None
            self._at = "call" if self._is_call else "text"
            if self._is_call:
                function = {"name": head["name"], "arguments": self._pass_arguments()}
                call = {"id": f"call_{new_id().hex}", "type": "function", "function": function}
                return {"tool_calls": [{"index": 0, **call}]}
        if self._at == "call" and (arguments := self._pass_arguments()):
            delta["tool_calls"] = [{"index": 0, "function": {"arguments": arguments}}]
        elif self._at == "text" and (text := self._pass_text()):
            delta["content"] = text
        return delta

    def end(self, reason: str | None) -> str | None:
        """Give the reason to finish in the place of the process's."""
        return "tool_calls" if reason == "stop" and self._is_call else reason

    def _pass_arguments(self) -> str:
        piece, self._rest = self._rest, ""
        for at, char in enumerate(piece):
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_quoted:
                self._is_escaped = char == "\\"
                self._is_quoted = char != '"'
            elif char == '"':
                self._is_quoted = True
            elif char == "{":
                self._depth += 1
            elif char == "}":
                self._depth -= 1
                if not self._depth:
                    self._at = "end"
                    return piece[: at + 1]
        return piece

    def _pass_text(self) -> str:
        whole = _WHOLE.match(self._rest)
        end = whole.end() if whole else 0
        passed, self._rest = self._rest[:end], self._rest[end:]
        if self._rest.startswith('"'):
            self._at = "end"
        text: str = json.loads(f'"{passed}"', strict=False)
        return text


def read_choice(choice: dict[str, Any]) -> None:
    """Put the reply of a whole answer's choice into OpenAI's words, in place."""
    reader = ReplyReader()
    delta = reader.feed(choice["message"].get("content") or "")
    calls = delta.get("tool_calls")
    choice["message"]["content"] = None if calls else delta.get("content", "")
    if calls:
        choice["message"]["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index"} for call in calls
        ]
    choice["finish_reason"] = reader.end(choice["finish_reason"])


def read_event(reader: ReplyReader, choice: dict[str, Any]) -> bool:
    """Do so with a streamed choice; tell whether anything of it is left to pass on."""
    delta = choice["delta"]
    if written := delta.pop("content", None):
        delta |= reader.feed(written)
    choice["finish_reason"] = reader.end(choice["finish_reason"])
    return bool(delta or choice["finish_reason"])
