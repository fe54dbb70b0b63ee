"""A conversation in OpenAI's words, told in Anthropic's: turns of blocks, the system's apart."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NoReturn, TypeAlias

from maas.inference.domain.wire import NotTakenError

Loc: TypeAlias = tuple[str | int, ...]
Block: TypeAlias = dict[str, object]

IMAGE_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
DOCUMENT_TYPE: Final = "application/pdf"
_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,", re.IGNORECASE)
_CALL_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")


def refuse(what: str, loc: Loc) -> NoReturn:
    raise NotTakenError(f"A model behind Anthropic's API {what}.", loc=loc)


def as_object(value: object, loc: Loc) -> dict[str, object]:
    if not isinstance(value, dict):
        refuse("takes an object here", loc)
    return value


def as_list(value: object, loc: Loc) -> list[object]:
    if not isinstance(value, list):
        refuse("takes a list here", loc)
    return value


def as_text(value: object, loc: Loc) -> str:
    if not isinstance(value, str):
        refuse("takes text here", loc)
    return value


def tell_messages(given: object) -> tuple[list[Block], list[dict[str, object]]]:
    """Split a conversation into the system's blocks and the turns of the two others.

    What the system says goes before everything, wherever it was said, as Anthropic's own face for
    OpenAI's clients has it: few models take it between turns. What one side says in a row becomes
    one turn, for the answers of parallel calls must come together.

    Raises:
        NotTakenError: a message says what these turns cannot.
    """
    system: list[Block] = []
    turns: list[dict[str, object]] = []
    for number, each in enumerate(as_list(given, ("messages",))):
        loc: Loc = ("messages", number)
        message = as_object(each, loc)
        role = message.get("role")
        match role:
            case "system" | "developer":
                system.extend(_texts(message.get("content"), (*loc, "content")))
                continue
            case "user":
                side, blocks = "user", list(_parts(message.get("content"), (*loc, "content")))
            case "assistant":
                side, blocks = "assistant", _said(message, loc)
            case "tool":
                side, blocks = "user", [_result(message, loc)]
            case _:
                refuse("knows no such role", (*loc, "role"))
        # A turn without a block is refused there, and says nothing here.
        if blocks:
            _append(turns, side, blocks)
    return system, turns


def _append(turns: list[dict[str, object]], role: str, blocks: list[Block]) -> None:
    if turns and turns[-1]["role"] == role:
        content = turns[-1]["content"]
        if isinstance(content, list):
            content.extend(blocks)
        return
    turns.append({"role": role, "content": blocks})


def _texts(content: object, loc: Loc) -> Iterator[Block]:
    """Read content that can only be text. What is nothing but space is refused there: left out."""
    if content is None:
        return
    if isinstance(content, str):
        if content.strip():
            yield {"type": "text", "text": content}
        return
    for number, each in enumerate(as_list(content, loc)):
        part = as_object(each, (*loc, number))
        kind = part.get("type")
        if kind == "refusal":
            yield from _texts(part.get("refusal"), (*loc, number, "refusal"))
        elif kind == "text":
            if as_text(part.get("text"), (*loc, number, "text")).strip():
                yield _kept(part, {"type": "text", "text": part["text"]})
        else:
            refuse("takes only text here", (*loc, number, "type"))


def _parts(content: object, loc: Loc) -> Iterator[Block]:
    """Read what a user says: text, pictures and documents."""
    if not isinstance(content, list):
        yield from _texts(content, loc)
        return
    for number, each in enumerate(content):
        at: Loc = (*loc, number)
        part = as_object(each, at)
        match part.get("type"):
            case "image_url":
                picture = as_object(part.get("image_url"), (*at, "image_url"))
                yield _kept(part, _picture(picture.get("url"), (*at, "image_url", "url")))
            case "file":
                document = as_object(part.get("file"), (*at, "file"))
                yield _kept(part, _document(document, (*at, "file")))
            case "text":
                yield from _texts([part], at[:-1])
            case _:
                refuse("takes text, images and documents here", (*at, "type"))


def _kept(part: Mapping[str, object], block: Block) -> Block:
    """Keep the mark that a caller who knows Anthropic's cache has put on a part."""
    if part.get("cache_control") is not None:
        block["cache_control"] = part["cache_control"]
    return block


def _picture(url: object, loc: Loc) -> Block:
    address = as_text(url, loc)
    if address[:5].lower() != "data:":
        return {"type": "image", "source": {"type": "url", "url": address}}
    return {"type": "image", "source": _inline(address, IMAGE_TYPES, loc)}


def _document(given: Mapping[str, object], loc: Loc) -> Block:
    if given.get("file_data") is None:
        refuse("has no files of OpenAI's: send `file_data`", (*loc, "file_id"))
    data = as_text(given["file_data"], (*loc, "file_data"))
    block: Block = {
        "type": "document",
        "source": _inline(data, frozenset({DOCUMENT_TYPE}), (*loc, "file_data")),
    }
    if isinstance(given.get("filename"), str):
        block["title"] = given["filename"]
    return block


def _inline(url: str, types: frozenset[str], loc: Loc) -> Block:
    found = _DATA_URL.match(url)
    kind = found[1].lower() if found else None
    if found is None or kind not in types:
        refuse(f"takes base64 of {', '.join(sorted(types))} in a data URL here", loc)
    return {"type": "base64", "media_type": kind, "data": url[found.end() :]}


def _said(message: Mapping[str, object], loc: Loc) -> list[Block]:
    """Read what the model said before. Its signed thoughts go back as they were told."""
    blocks: list[Block] = []
    thoughts = message.get("thinking_blocks")
    if thoughts is not None:
        at: Loc = (*loc, "thinking_blocks")
        for number, each in enumerate(as_list(thoughts, at)):
            # The number is ours: a stream tells it.
            block = {**as_object(each, (*at, number))}
            block.pop("index", None)
            blocks.append(block)
    blocks.extend(_texts(message.get("content"), (*loc, "content")))
    if message.get("function_call") is not None:
        refuse("knows `tool_calls` in place of it", (*loc, "function_call"))
    calls = message.get("tool_calls")
    if calls is not None:
        at = (*loc, "tool_calls")
        blocks.extend(_call(each, (*at, number)) for number, each in enumerate(as_list(calls, at)))
    return blocks


def _call(given: object, loc: Loc) -> Block:
    call = as_object(given, loc)
    if call.get("type", "function") != "function":
        refuse("calls functions only", (*loc, "type"))
    function = as_object(call.get("function"), (*loc, "function"))
    at: Loc = (*loc, "function", "arguments")
    written = as_text(function.get("arguments"), at)
    try:
        arguments: object = json.loads(written) if written.strip() else {}
    except (ValueError, RecursionError):
        refuse("takes a JSON object here", at)
    return {
        "type": "tool_use",
        "id": _call_id(call.get("id"), (*loc, "id")),
        "name": as_text(function.get("name"), (*loc, "function", "name")),
        "input": as_object(arguments, at),
    }


def _result(message: Mapping[str, object], loc: Loc) -> Block:
    block: Block = {
        "type": "tool_result",
        "tool_use_id": _call_id(message.get("tool_call_id"), (*loc, "tool_call_id")),
    }
    content: Sequence[Block] = list(_parts(message.get("content"), (*loc, "content")))
    if content:
        block["content"] = content
    return block


def _call_id(given: object, loc: Loc) -> str:
    """Keep an id as it is, where that can be said there: other suppliers write others."""
    written = as_text(given, loc)
    if _CALL_ID.fullmatch(written):
        return written
    return f"call_{hashlib.sha256(written.encode(errors='replace')).hexdigest()[:24]}"
