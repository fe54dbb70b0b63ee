"""Text that is made up, the same for the same seed, and counted in words."""

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

TOKENS_A_MESSAGE: Final = 4
PIECE_CHARS: Final = 8
_MAX_DEPTH: Final = 8

_TEXT: Final = (
    "the river carries its water past old mills and quiet fields while people count boats "
    "from a bridge at noon some wave others read letters about rain harvest and distant towns "
    "every evening lamps are lit along both banks until night comes slowly over hills"
)
_WORDS: Final = _TEXT.split()


@lru_cache(maxsize=1_024)
def words(seed: str, count: int) -> tuple[str, ...]:
    """Make up tokens: words, each but the first with the space before it."""
    at = zlib.crc32(seed.encode())
    step = 1 + at % 7
    return tuple(
        ("" if number == 0 else " ") + _WORDS[(at + number * step) % len(_WORDS)]
        for number in range(count)
    )


def pieces(text: str) -> tuple[str, ...]:
    """Cut a text into tokens of a few characters each."""
    return tuple(text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS))


def count_text(text: str) -> int:
    return len(text.split())


def count_messages(messages: Sequence[Mapping[str, Any]]) -> int:
    """Count what a prompt costs: its words, and something for each message."""
    return sum(
        TOKENS_A_MESSAGE + count_text(text_of(message.get("content"))) for message in messages
    )


def text_of(content: object) -> str:
    """Read the text of a message, which is plain or in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def cut_at(tokens: Sequence[str], stops: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """Cut tokens before the first of the stops, and tell which."""
    text = "".join(tokens)
    found = [(text.index(stop), stop) for stop in stops if stop and stop in text]
    if not found:
        return tuple(tokens), None
    end, stop = min(found)
    kept, length = [], 0
    for token in tokens:
        part = token[: end - length]
        if not part:
            break
        kept.append(part)
        length += len(part)
    return tuple(kept), stop


def sample(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """Make up a value that a JSON schema accepts."""
    root = schema if root is None else root
    if depth > _MAX_DEPTH:
        return None
    if "$ref" in schema:
        return sample(_resolve(schema["$ref"], root), root, depth + 1)
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    if "enum" in schema:
        return schema["enum"][0]
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return sample(schema[word][0], root, depth + 1)
    return _of_type(schema, root, depth)


def _of_type(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        parts = schema.get("properties", {})
        return {name: sample(part, root, depth + 1) for name, part in parts.items()}
    if kind == "array":
        least = max(1, schema.get("minItems", 1))
        return [sample(schema.get("items", {}), root, depth + 1) for _ in range(least)]
    plain: dict[str, Any] = {"boolean": True, "null": None, "string": "river"}
    return plain.get(kind, schema.get("minimum", 7))


def _resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found if isinstance(found, dict) else {}
