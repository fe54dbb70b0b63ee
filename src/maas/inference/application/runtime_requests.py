"""What a call asks of a model's process: one request for each choice, and known fields alone.

llama.cpp's server has fields of its own that would let a caller write more than was paid for
(`n_predict`), pick a slot (`id_slot`), or see whether others sent the same text
(`cache_prompt`). So what is passed on is listed. It takes as many choices as it has slots and
counts the tokens of one alone, so that each choice is asked for by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from maas.inference.application.runtime_bounds import expect_bounded
from maas.inference.application.runtime_ports import Mode, ModelFacts, RuntimeRequestError
from maas.inference.application.runtime_tools import offer_tools
from maas.inference.public import CallKind

Json: TypeAlias = dict[str, object]

MAX_CHOICES: Final = 128

MODES: Final[Mapping[CallKind, Mode]] = {
    "chat": "generate",
    "completions": "generate",
    "embeddings": "embed",
}

_SAMPLING: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repeat_penalty",
    "logit_bias",
    "logprobs",
)
_PASSED: Final[Mapping[CallKind, Sequence[str]]] = {
    "chat": (
        *_SAMPLING,
        "messages",
        "top_logprobs",
        "response_format",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "chat_template_kwargs",
    ),
    "completions": _SAMPLING,
    "embeddings": ("input", "encoding_format"),
}
_TEXT_PARTS: Final = frozenset({"text", "refusal"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A request for one choice. The prompt is charged with the first choice that has it."""

    index: int
    body: Json
    has_new_prompt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to ask a process for, and what the caller wants of the answers.

    `is_in_json`: a reply is JSON, because tools were offered to a template that knows none.
    """

    kind: CallKind
    shares: Sequence[Share]
    is_stream: bool = False
    wants_usage: bool = False
    is_in_json: bool = False
    dimensions: int | None = None


def plan(kind: CallKind, body: Mapping[str, object], facts: ModelFacts) -> Plan:
    """Share a call out.

    Raises:
        RuntimeRequestError: it asks for what cannot be done here.
    """
    passed: Json = {name: body[name] for name in _PASSED[kind] if body.get(name) is not None}
    if kind == "embeddings":
        dimensions = _check_dimensions(body.get("dimensions"), facts)
        share = Share(index=0, body=passed, has_new_prompt=True)
        return Plan(kind=kind, shares=[share], dimensions=dimensions)
    expect_bounded(passed)
    passed["cache_prompt"] = False
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    if most is not None:
        passed["max_tokens"] = most
    is_stream = body.get("stream") is True
    if is_stream:
        passed |= {"stream": True, "stream_options": {"include_usage": True}}
    is_in_json = False
    if kind == "chat":
        _check_chat(passed, body)
        is_in_json = offer_tools(passed, facts)
        prompts: list[Json] = [{}]
    else:
        _check_completions(body)
        prompts = [{"prompt": prompt} for prompt in _prompts_of(body.get("prompt"))]
    return Plan(
        kind=kind,
        shares=_share_out(passed, prompts, choices=_choices(body), seed=body.get("seed")),
        is_stream=is_stream,
        wants_usage=_wants_usage(body.get("stream_options")),
        is_in_json=is_in_json,
    )


def _share_out(passed: Json, prompts: Sequence[Json], *, choices: int, seed: object) -> list[Share]:
    if choices * len(prompts) > MAX_CHOICES:
        message = f"At most {MAX_CHOICES} choices are made in one call."
        raise RuntimeRequestError(message, loc=("n",))
    shares = []
    for position, prompt in enumerate(prompts):
        for choice in range(choices):
            body = passed | prompt
            if isinstance(seed, int):
                # The same seed would give the same answer each time.
                body["seed"] = (seed + choice) % 2**32
            shares.append(
                Share(index=position * choices + choice, body=body, has_new_prompt=choice == 0)
            )
    return shares


def _choices(body: Mapping[str, object]) -> int:
    wanted = body.get("n")
    if wanted is None:
        return 1
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        message = "`n` is a whole number from 1 on."
        raise RuntimeRequestError(message, loc=("n",))
    return wanted


def _wants_usage(options: object) -> bool:
    return isinstance(options, Mapping) and options.get("include_usage") is True


def _check_dimensions(wanted: object, facts: ModelFacts) -> int | None:
    length = facts.embedding_length
    if wanted is None or wanted == length:
        return length
    has = "another number of" if length is None else f"{length}"
    message = f"This model's embeddings have {has} dimensions, and are not cut."
    raise RuntimeRequestError(message, loc=("dimensions",))


def _check_chat(passed: Json, body: Mapping[str, object]) -> None:
    messages = passed.get("messages")
    if not isinstance(messages, list) or not messages:
        message = "`messages` is a list with at least one message."
        raise RuntimeRequestError(message, loc=("messages",))
    if any(_has_media(each) for each in messages):
        # It would fetch what addresses lead to, files of this machine included.
        message = "This model reads text alone: no images, sounds or files."
        raise RuntimeRequestError(message, loc=("messages",))
    if not all(map(_is_told, messages)):
        message = "Each message has a role and a content: a text, or parts that have a `text` each."
        raise RuntimeRequestError(message, loc=("messages",))
    if body.get("functions"):
        message = "Functions are offered as `tools` here, and not by their older name."
        raise RuntimeRequestError(message, loc=("functions",))


def _has_media(message: object) -> bool:
    content = message.get("content") if isinstance(message, Mapping) else None
    return isinstance(content, list) and any(
        not isinstance(part, Mapping) or part.get("type") not in _TEXT_PARTS for part in content
    )


def _is_told(message: object) -> bool:
    """Tell whether a message is one: what is none fails over there as if nobody could answer."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        return False
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(part.get(part["type"]), str) for part in content)
    return content is None or isinstance(content, str)


def _check_completions(body: Mapping[str, object]) -> None:
    for name in ("echo", "suffix", "best_of"):
        wanted = body.get(name)
        if wanted and not (name == "best_of" and wanted == _choices(body)):
            message = f"`{name}` is not to be had here."
            raise RuntimeRequestError(message, loc=(name,))


def _prompts_of(prompt: object) -> list[object]:
    """List the prompts: texts, or lists of tokens; one alone may come without a list."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(each, int) for each in prompt):
            return [prompt]
        if all(isinstance(each, (str, list)) for each in prompt):
            return prompt
    message = "`prompt` is a text, a list of texts, or lists of tokens."
    raise RuntimeRequestError(message, loc=("prompt",))
