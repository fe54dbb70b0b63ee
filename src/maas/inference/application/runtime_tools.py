"""Tools of a chat, for models whose template knows none too.

Such a template leaves tools out without a word. So they are told in the prompt, and the reply is
held to JSON that is either a call of one of them, by its schema, or a text.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from maas.inference.application.runtime_ports import ModelFacts, RuntimeRequestError

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TEXT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
_NO_PARAMETERS: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}
_NOT_BESIDE_TOOLS: Final = ("stop", "logprobs", "top_logprobs", "response_format")
"""What speaks of the text that is written, which is JSON here and not what the caller reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """Tools that may be called, as they were given; one of them has to be if `is_forced`."""

    tools: Sequence[Mapping[str, Any]]
    is_forced: bool = False


def offer_tools(passed: dict[str, Any], facts: ModelFacts) -> bool:
    """Put the tools of a request as its model understands them; tell whether it replies in JSON.

    Raises:
        RuntimeRequestError: they are not as OpenAI has them, or stand beside what excludes them.
    """
    offer = _choose(_check_tools(passed.get("tools")), passed.get("tool_choice"))
    if facts.takes_tools:
        if offer.is_forced:
            # llama.cpp knows no names here, and would let the model choose.
            passed |= {"tools": offer.tools, "tool_choice": "required"}
        return False
    for name in ("tools", "tool_choice", "parallel_tool_calls"):
        passed.pop(name, None)
    passed["messages"] = _spell_out(passed["messages"])
    if not offer.tools:
        return False
    for name in _NOT_BESIDE_TOOLS:
        if passed.get(name) and passed[name] != {"type": "text"}:
            message = f"`{name}` is not to be had beside tools: this model's template knows none."
            raise RuntimeRequestError(message, loc=(name,))
    passed["messages"] = _begin(passed["messages"], _explain(offer), facts)
    reply = {"name": "reply", "schema": _schema_of(offer)}
    passed["response_format"] = {"type": "json_schema", "json_schema": reply}
    return True


def _check_tools(tools: object) -> Sequence[Mapping[str, Any]]:
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise _refused("`tools` is a list of functions.")
    names = set()
    for tool in tools:
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or tool.get("type") != "function":
            raise _refused("Each tool is of the type `function`, and says which.")
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in names:
            raise _refused(
                "A function has a name of its own: 1 to 64 letters, digits, `_` and `-`."
            )
        names.add(name)
        parameters = function.get("parameters")
        if parameters and (
            not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object"
        ):
            raise _refused(f"The parameters of `{name}` are the schema of an object.")
    return tools


def _choose(tools: Sequence[Mapping[str, Any]], choice: object) -> _Offer:
    match choice:
        case None | "auto":
            return _Offer(tools=tools)
        case "none":
            return _Offer(tools=[])
        case "required":
            chosen = tools
        case {"type": "function", "function": {"name": str(name)}}:
            chosen = [tool for tool in tools if tool["function"]["name"] == name]
        case _:
            message = "`tool_choice` is `none`, `auto`, `required`, or names a function."
            raise RuntimeRequestError(message, loc=("tool_choice",))
    if not chosen:
        message = "`tool_choice` asks for a function that is not among the tools."
        raise RuntimeRequestError(message, loc=("tool_choice",))
    return _Offer(tools=chosen, is_forced=True)


def _explain(offer: _Offer) -> str:
    functions = [
        {name: tool["function"].get(name) for name in ("name", "description", "parameters")}
        for tool in offer.tools
    ]
    lines = [
        "You can call these functions:",
        *(_spell({name: value for name, value in each.items() if value}) for each in functions),
        'To call one, reply {"name": its name, "arguments": {...}} and nothing else.',
    ]
    if not offer.is_forced:
        lines.append('To answer without a call, reply {"text": your answer}.')
    return "\n".join(lines)


def _schema_of(offer: _Offer) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    replies: list[dict[str, Any]] = []
    for tool in offer.tools:
        name = tool["function"]["name"]
        at = f"#/$defs/{name}"
        parameters = tool["function"].get("parameters")
        if parameters is None:
            definitions[name] = _NO_PARAMETERS
        else:
            definitions[name] = {"type": "object", **_moved(parameters, to=at)}
        # It is written in this order, and read so.
        members = {"name": {"const": name}, "arguments": {"$ref": at}}
        replies.append(
            {
                "type": "object",
                "properties": members,
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    if not offer.is_forced:
        replies.append(_TEXT)
    return {"anyOf": replies, "$defs": definitions}


def _moved(schema: Any, *, to: str) -> Any:
    """Lead a schema's references to where it stands now."""
    if isinstance(schema, list):
        return [_moved(each, to=to) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        name: to + value[1:]
        if name == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, to=to)
        for name, value in schema.items()
    }


def _spell_out(messages: Sequence[Any]) -> list[Any]:
    """Turn calls and their results into texts, as the template has no place for them."""
    told: list[Any] = []
    names: dict[object, str] = {}
    is_result = False
    for message in messages:
        before, is_result = is_result, False
        match message:
            case {"role": "assistant", "tool_calls": [_, *_] as calls}:
                lines = [text] if (text := _text_of(message.get("content"))) else []
                for call in calls:
                    key, name, arguments = _read_call(call)
                    names[key] = name
                    lines.append(f'{{"name": "{name}", "arguments": {arguments}}}')
                told.append({"role": "assistant", "content": "\n".join(lines)})
                continue
            case {"role": "tool"}:
                if (key := message.get("tool_call_id")) not in names:
                    note = f"No call before it has the id {key!r}, and a result belongs to one."
                    raise RuntimeRequestError(note, loc=("messages",))
                is_result = True
                result = f"Result of {names[key]}: {_text_of(message.get('content'))}"
                said = {"role": "user", "content": result}
            case _:
                said = message
        if told and (before or is_result) and _is_users(told[-1]) and _is_users(said):
            # Many templates want users and models to take turns.
            texts = (_text_of(each.get("content")) for each in (told.pop(), said))
            said = {"role": "user", "content": "\n".join(texts)}
            is_result = True
        told.append(said)
    return told


def _read_call(call: object) -> tuple[object, str, str]:
    match call:
        case {"id": str(key), "function": {"name": str(name), "arguments": str(arguments)}}:
            return key, name, arguments
        case _:
            message = "A message's call has an `id` and a `function` with `name` and `arguments`."
            raise RuntimeRequestError(message, loc=("messages",))


def _begin(messages: Sequence[Any], explained: str, facts: ModelFacts) -> list[Any]:
    """Explain the tools before all else that is said, in a role that the template knows."""
    first, *others = messages
    role = first.get("role") if isinstance(first, Mapping) else None
    if role in {"system", "developer"}:
        text = f"{_text_of(first.get('content'))}\n\n{explained}"
        return [{**first, "content": text}, *others]
    if facts.takes_system:
        return [{"role": "system", "content": explained}, *messages]
    if role == "user":
        text = f"{explained}\n\n{_text_of(first.get('content'))}"
        return [{**first, "content": text}, *others]
    return [{"role": "user", "content": explained}, *messages]


def _is_users(message: object) -> bool:
    return isinstance(message, Mapping) and message.get("role") == "user"


def _text_of(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def _spell(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _refused(message: str) -> RuntimeRequestError:
    return RuntimeRequestError(message, loc=("tools",))
