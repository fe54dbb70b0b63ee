"""A request for a chat in OpenAI's words, spelled for Anthropic's `POST /v1/messages`.

What has a counterpart is translated. What only helps OpenAI's own servers along, and changes no
answer, is left out. What would change the answer and cannot be said is refused by name, so that
nobody gets another answer than he asked for without a word. A field that OpenAI does not know goes
on as it stands, for it may be Anthropic's: `thinking`, `top_k`, `cache_control`; what is nobody's
is refused there.
"""

import json
from collections.abc import Mapping
from typing import Final

from maas.inference.domain.anthropic_messages import (
    Block,
    Loc,
    as_list,
    as_object,
    as_text,
    refuse,
    tell_messages,
)
from maas.inference.domain.call import Ask

DEFAULT_OUTPUT: Final = 4_096
"""Anthropic wants to be told how long an answer may be; whoever calls us need not."""

_TRANSLATED: Final = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "service_tier",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
        "user",
    }
)
_HINTS: Final = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
    }
)
_ONLY: Final[Mapping[str, object]] = {
    "audio": None,
    "frequency_penalty": 0,
    "function_call": None,
    "functions": [],
    "logit_bias": {},
    "logprobs": False,
    "modalities": ["text"],
    "moderation": None,
    "n": 1,
    "presence_penalty": 0,
    "seed": None,
    "store": False,
    "top_logprobs": 0,
    "verbosity": "medium",
    "web_search_options": None,
}
"""What cannot be said, with the value that asks for nothing; `null` is one everywhere."""

_EFFORTS: Final[Mapping[str, str]] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
_TIERS: Final[Mapping[str, str]] = {"auto": "auto", "default": "standard_only"}
_NO_ARGUMENTS: Final[Mapping[str, object]] = {"type": "object", "properties": {}}


def spell(ask: Ask, model: str, *, most_output: int | None) -> bytes:
    """Write the request.

    Raises:
        NotTakenError: the caller wants what Anthropic's API cannot give.
    """
    body = {name: value for name, value in ask.body.items() if value is not None}
    for name, harmless in _ONLY.items():
        if name in body and body[name] != harmless:
            refuse(f"cannot do this: leave out `{name}`", (name,))
    system, turns = tell_messages(body.get("messages"))
    spelled: dict[str, object] = {
        "model": model,
        "max_tokens": most_output or ask.most_output or DEFAULT_OUTPUT,
        "messages": turns,
        **({"system": system} if system else {}),
        **({"stream": True} if ask.is_stream else {}),
        **_sampling(body),
        **_tools(body),
        **_thinking(body),
        **_about_the_caller(body),
    }
    known = _TRANSLATED | _HINTS | _ONLY.keys()
    own = {name: value for name, value in body.items() if name not in known}
    if "system" in own and system:
        refuse("takes `system` or messages of the system, not both", ("system",))
    config = {**_output_config(body), **as_object(own.pop("output_config", {}), ("output_config",))}
    if config:
        spelled["output_config"] = config
    return json.dumps({**spelled, **own}, separators=(",", ":")).encode()


def _sampling(body: Mapping[str, object]) -> dict[str, object]:
    """Tell how to choose words. What is everybody's default is not said: new models refuse it.

    Anthropic's warmest is 1, and its own face for OpenAI's clients takes more for 1.
    """
    told: dict[str, object] = {}
    for name in ("temperature", "top_p"):
        value = body.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            refuse("takes a number here", (name,))
        if value is not None and value < 1:
            told[name] = value
    stops = body.get("stop")
    if stops:
        told["stop_sequences"] = [stops] if isinstance(stops, str) else as_list(stops, ("stop",))
    return told


def _tools(body: Mapping[str, object]) -> dict[str, object]:
    given = as_list(body.get("tools", []), ("tools",))
    if not given:
        if body.get("tool_choice", "auto") not in ("auto", "none"):
            refuse("cannot choose among no tools", ("tool_choice",))
        return {}
    tools = [_tool(each, ("tools", number)) for number, each in enumerate(given)]
    tools, choice = _choice(body.get("tool_choice"), tools)
    if body.get("parallel_tool_calls") is False and choice.get("type") != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    return {"tools": tools, **({"tool_choice": choice} if choice else {})}


def _tool(given: object, loc: Loc) -> Block:
    tool = as_object(given, loc)
    if tool.get("type") != "function":
        refuse("takes functions as tools only", (*loc, "type"))
    function = as_object(tool.get("function"), (*loc, "function"))
    told: Block = {
        "name": as_text(function.get("name"), (*loc, "function", "name")),
        "input_schema": as_object(
            function.get("parameters") or dict(_NO_ARGUMENTS), (*loc, "function", "parameters")
        ),
    }
    if function.get("description") is not None:
        told["description"] = function["description"]
    if function.get("strict"):
        told["strict"] = True
    if tool.get("cache_control") is not None:
        told["cache_control"] = tool["cache_control"]
    return told


def _choice(given: object, tools: list[Block]) -> tuple[list[Block], Block]:
    """Tell which tools may be called, and whether one must be."""
    loc: Loc = ("tool_choice",)
    if given is None:
        return tools, {}
    if isinstance(given, str):
        return tools, {"type": _mode(given, loc, none="none")}
    wanted = as_object(given, loc)
    if wanted.get("type") == "function":
        return tools, {"type": "tool", "name": _named(wanted, loc)}
    if wanted.get("type") != "allowed_tools":
        refuse("chooses functions only", (*loc, "type"))
    loc = (*loc, "allowed_tools")
    allowed = as_object(wanted.get("allowed_tools"), loc)
    names = {
        _named(as_object(each, (*loc, "tools", number)), (*loc, "tools", number))
        for number, each in enumerate(as_list(allowed.get("tools"), (*loc, "tools")))
    }
    mode = as_text(allowed.get("mode", "auto"), (*loc, "mode"))
    return [tool for tool in tools if tool["name"] in names], {"type": _mode(mode, (*loc, "mode"))}


def _mode(given: str, loc: Loc, **more: str) -> str:
    modes = {"auto": "auto", "required": "any", **more}
    if given not in modes:
        refuse("knows no such choice", loc)
    return modes[given]


def _named(given: Mapping[str, object], loc: Loc) -> str:
    function = as_object(given.get("function"), (*loc, "function"))
    return as_text(function.get("name"), (*loc, "function", "name"))


def _thinking(body: Mapping[str, object]) -> dict[str, object]:
    effort = body.get("reasoning_effort")
    if effort is None:
        return {}
    return {"thinking": {"type": "disabled" if effort == "none" else "adaptive"}}


def _output_config(body: Mapping[str, object]) -> dict[str, object]:
    config: dict[str, object] = {}
    effort = body.get("reasoning_effort", "none")
    if effort != "none":
        if not isinstance(effort, str) or effort not in _EFFORTS:
            refuse("knows no such effort", ("reasoning_effort",))
        config["effort"] = _EFFORTS[effort]
    wanted = as_object(body.get("response_format", {"type": "text"}), ("response_format",))
    match wanted.get("type"):
        case "text":
            pass
        case "json_schema":
            loc: Loc = ("response_format", "json_schema")
            schema = as_object(wanted.get("json_schema"), loc).get("schema")
            config["format"] = {
                "type": "json_schema",
                "schema": as_object(schema, (*loc, "schema")),
            }
        case _:
            refuse("answers in text or by a JSON schema", ("response_format",))
    return config


def _about_the_caller(body: Mapping[str, object]) -> dict[str, object]:
    told: dict[str, object] = {}
    person = body.get("safety_identifier", body.get("user"))
    if person is not None:
        told["metadata"] = {"user_id": person}
    tier = body.get("service_tier")
    if tier is not None:
        if not isinstance(tier, str) or tier not in _TIERS:
            refuse("has the tiers `auto` and `default`", ("service_tier",))
        told["service_tier"] = _TIERS[tier]
    return told
