"""How much a call may want of each token: a process that reckons for one answers nobody else."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from maas.inference.application.runtime_ports import RuntimeRequestError

_NUMBERS: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0, 10),
    "top_p": (0, 1),
    "top_k": (-1, 10**6),
    "min_p": (0, 1),
    "presence_penalty": (-10, 10),
    "frequency_penalty": (-10, 10),
    "repeat_penalty": (0, 10),
    "top_logprobs": (0, 20),
    # A yes, or a number in completions.
    "logprobs": (0, 20),
}

MAX_STOPS: Final = 16
MAX_STOP_CHARS: Final = 1_000
MAX_BIASES: Final = 1_024

_MOST_BYTES: Final[Mapping[str, int]] = {"response_format": 64 * 1024, "tools": 256 * 1024}

MAX_REPEATED: Final = 512
"""What stands in what is repeated adds up: llama.cpp keeps all that may come yet for each token."""

MAX_REPEATED_IN_ALL: Final = 10_000

_REPEATS: Final = ("minItems", "maxItems", "minLength", "maxLength")
_IN_PATTERN: Final = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_MAX_DIGITS: Final = 6


def expect_bounded(passed: Mapping[str, object]) -> None:
    """Check what says how the answer is chosen.

    Raises:
        RuntimeRequestError: it would keep all others waiting, or is no such thing.
    """
    for name, (least, most) in _NUMBERS.items():
        value = passed.get(name)
        if value is None or (name == "logprobs" and isinstance(value, bool)):
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not least <= value <= most
        ):
            raise _refused(name, f"`{name}` is a number from {least} to {most}.")
    if not _is_stop(passed.get("stop")):
        raise _refused("stop", f"`stop` is a text, or a list of up to {MAX_STOPS} short texts.")
    biases = passed.get("logit_bias")
    if isinstance(biases, (Mapping, list)) and len(biases) > MAX_BIASES:
        raise _refused("logit_bias", f"`logit_bias` has up to {MAX_BIASES} tokens.")
    for name, most_bytes in _MOST_BYTES.items():
        _expect_short_grammar(name, passed.get(name), most_bytes)


def _is_stop(stop: object) -> bool:
    stops = [stop] if isinstance(stop, str) else stop
    if stops is None:
        return True
    return (
        isinstance(stops, list)
        and len(stops) <= MAX_STOPS
        and all(isinstance(each, str) and len(each) <= MAX_STOP_CHARS for each in stops)
    )


def _expect_short_grammar(name: str, value: object, most_bytes: int) -> None:
    if value is None:
        return
    if len(json.dumps(value)) > most_bytes:
        raise _refused(name, f"`{name}` has up to {most_bytes} bytes here.")
    longest, in_all = _repeated(value)
    if longest > MAX_REPEATED or in_all > MAX_REPEATED_IN_ALL:
        message = (
            f"`{name}` repeats too much: lengths and numbers of items within one another add up to "
            f"{MAX_REPEATED} at most here, and to {MAX_REPEATED_IN_ALL} in all. Leave some out."
        )
        raise _refused(name, message)


def _repeated(node: object) -> tuple[int, int]:
    """Tell how often a schema repeats something: within one another at most, and in all."""
    if isinstance(node, Mapping):
        own, inner = _own_repeats(node), list(node.values())
    elif isinstance(node, list):
        own, inner = 0, node
    else:
        return 0, 0
    found = [_repeated(each) for each in inner]
    longest = max((each for each, _ in found), default=0)
    return own + longest, own + sum(in_all for _, in_all in found)


def _own_repeats(schema: Mapping[str, object]) -> int:
    pattern = schema.get("pattern")
    bounds = [value for name in _REPEATS if isinstance(value := schema.get(name), (int, float))]
    return int(min(max(bounds, default=0), 10**9)) + (
        sum(_counted(_IN_PATTERN.findall(pattern))) if isinstance(pattern, str) else 0
    )


def _counted(found: Iterable[tuple[str, str]]) -> Iterable[int]:
    for least, most in found:
        number = most or least
        yield int(number) if len(number) <= _MAX_DIGITS else MAX_REPEATED_IN_ALL


def _refused(name: str, message: str) -> RuntimeRequestError:
    return RuntimeRequestError(message, loc=(name,))
