"""What Anthropic's API refuses of a request, as far as a caller can get it wrong."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from anthropic.types import message_create_params

from tests.upstream.replies import RefusedError

OLD: Final = frozenset({"temperature", "top_p", "top_k"})
"""Known until the version of October 2026, which the platform does not speak."""

KNOWN: Final = OLD | {
    "stream",
    *message_create_params.MessageCreateParamsBase.__annotations__,
}
_BLOCKS: Final[Mapping[str, frozenset[str]]] = {
    "user": frozenset({"text", "image", "document", "tool_result"}),
    "assistant": frozenset({"text", "thinking", "redacted_thinking", "tool_use"}),
}


def check(body: Mapping[str, Any]) -> None:
    """Refuse in Anthropic's words.

    Raises:
        RefusedError: the request is wrong.
    """
    for name in body:
        if name not in KNOWN:
            raise RefusedError(400, f"{name}: Extra inputs are not permitted")
    limit = body.get("max_tokens")
    if not isinstance(limit, int) or limit < 1:
        raise RefusedError(400, "max_tokens: Field required")
    for name in ("temperature", "top_p"):
        if not 0 <= body.get(name, 0) <= 1:
            raise RefusedError(400, f"{name}: Input should be less than or equal to 1")
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise RefusedError(400, "messages: at least one message is required")
    _check_turns(given)
    if isinstance(body.get("system"), list):
        _check_blocks("system", body["system"], frozenset({"text"}))
    _check_tools(body)


def _check_turns(turns: Sequence[Mapping[str, Any]]) -> None:
    called: list[str] = []
    for number, turn in enumerate(turns):
        where, role = f"messages.{number}", str(turn.get("role"))
        content: Any = turn.get("content")
        if role not in _BLOCKS:
            raise RefusedError(400, f"{where}: role must be 'user' or 'assistant'")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        _check_blocks(where, blocks, _BLOCKS[role])
        answered = [part["tool_use_id"] for part in blocks if part["type"] == "tool_result"]
        if sorted(answered) != sorted(called):
            missing = ", ".join(sorted({*called} ^ {*answered}))
            raise RefusedError(
                400,
                f"{where}: `tool_use` ids were found without `tool_result` blocks immediately "
                f"after, or the other way round: {missing}.",
            )
        called = [part["id"] for part in blocks if part["type"] == "tool_use"]


def _check_blocks(where: str, blocks: Any, known: frozenset[str]) -> None:
    if not isinstance(blocks, list) or not blocks:
        raise RefusedError(400, f"{where}: all messages must have non-empty content")
    for number, block in enumerate(blocks):
        if block.get("type") not in known:
            raise RefusedError(400, f"{where}.content.{number}: Input tag is not expected")
        if block["type"] == "text" and not block["text"].strip():
            raise RefusedError(
                400, "messages: text content blocks must contain non-whitespace text"
            )
        if block["type"] == "thinking" and not block.get("signature"):
            raise RefusedError(400, f"{where}.content.{number}.thinking.signature: Field required")


def _check_tools(body: Mapping[str, Any]) -> None:
    tools, choice = body.get("tools") or [], body.get("tool_choice")
    if choice is None:
        return
    if not tools:
        raise RefusedError(400, "tool_choice: may only be specified while providing `tools`")
    if choice["type"] == "tool" and choice["name"] not in {tool["name"] for tool in tools}:
        raise RefusedError(400, f"tool_choice: Tool '{choice['name']}' not found in provided tools")
