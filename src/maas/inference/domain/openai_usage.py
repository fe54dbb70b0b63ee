"""What an answer in OpenAI's form says it used, as far as it can be believed."""

from typing import Final

from maas.inference.domain.call import TokenCounts

MOST_TOKENS: Final = 10**12
"""The ledger takes no more of one call."""


def read_usage(usage: object) -> TokenCounts | None:
    """Read a `usage` object; `None` if it is none, or cannot be true: nobody answers to nothing.

    OpenAI counts reasoning within the completion, and so do most. A few count it beside: the total
    tells.
    """
    if not isinstance(usage, dict):
        return None
    prompt = None if usage.get("prompt_tokens") is None else _count(usage["prompt_tokens"])
    completion = _count(usage.get("completion_tokens", 0))
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
    if cached == 0:
        cached = _count(usage.get("prompt_cache_hit_tokens", 0))
    reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    if prompt is None or completion is None or cached is None or reasoning is None:
        return None
    is_beside = reasoning > 0 and usage.get("total_tokens") == prompt + completion + reasoning
    output = completion if is_beside else completion - reasoning
    if cached > prompt or output < 0 or not prompt + completion:
        return None
    return TokenCounts(input=prompt, cached=cached, output=output, reasoning=reasoning)


def _detail(usage: dict[str, object], group: str, name: str) -> int | None:
    details = usage.get(group)
    if details is None:
        return 0
    return _count(details.get(name, 0)) if isinstance(details, dict) else None


def _count(value: object) -> int | None:
    """Take a plain count; what is null counts as nothing."""
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MOST_TOKENS:
        return None
    return value
