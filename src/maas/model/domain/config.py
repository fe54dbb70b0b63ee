"""Reads a model's `config.json`, which says what safetensors and ONNX files do not.

It is a hint and no header: one that cannot be read is a file like any other.
"""

import json
from typing import cast

from maas.model.domain.facts import Facts, count, word
from maas.model.domain.reading import Reading, Span

NAME = "config.json"
MAX_BYTES = 1024 * 1024

_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
)
_TYPES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}


def read_config(size: int) -> Reading[Facts | None]:
    """Look for what the common keys say; `None` if it is not JSON or says nothing of a model."""
    if not 0 < size <= MAX_BYTES:
        return None
    text = yield Span(0, size)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    config = cast("dict[str, object]", found)
    # Models of several kinds of input keep what is about text apart.
    inner = config.get("text_config")
    places = [config, inner] if isinstance(inner, dict) else [config]
    facts = Facts(
        format="config",
        architecture=_architecture(config),
        dtype=_dtype(places),
        quantisation=_quantisation(config),
        context_length=_first_count(places),
    )
    return None if facts == Facts(format="config") else facts


def _architecture(config: dict[str, object]) -> str | None:
    """Prefer the model's type, for GGUF files have the same words for it."""
    classes = config.get("architectures")
    first = classes[0] if isinstance(classes, list) and classes else None
    return word(config.get("model_type")) or word(first)


def _dtype(places: list[dict[str, object]]) -> str | None:
    for place in places:
        for key in ("torch_dtype", "dtype"):
            name = word(place.get(key))
            if name is not None:
                return _TYPES.get(name.removeprefix("torch."), name)
    return None


def _quantisation(config: dict[str, object]) -> str | None:
    found = config.get("quantization_config")
    return word(found.get("quant_method")) if isinstance(found, dict) else None


def _first_count(places: list[dict[str, object]]) -> int | None:
    numbers = (count(place.get(key)) for place in places for key in _LENGTHS)
    return next((number for number in numbers if number is not None), None)
