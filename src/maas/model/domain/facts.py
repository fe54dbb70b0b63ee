"""What is read in the files of a version without loading them, and what it says of the version."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias, TypeVar

from maas.model.domain.file import FilePath
from maas.model.public import VersionId
from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.text import has_invisible

MAX_WORD_CHARS = 100
MAX_NUMBER = 2**63 - 1

T = TypeVar("T")

Format: TypeAlias = Literal["safetensors", "gguf", "onnx", "zip", "pickle", "config"]
"""How a file is laid out; `config` is a model's `config.json`."""

_WEIGHTS: Sequence[Format] = ("safetensors", "gguf", "onnx", "pickle")
_SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5})(\.\w+)")


class LyingHeaderError(InvalidInputError):
    """A file says of itself what its bytes do not bear out."""

    code = "lying-header"
    title = "The file is not what its header says"

    def __init__(self, file_format: Format, problem: str) -> None:
        super().__init__(
            f"The file was read as {file_format} and refused: {problem}. Nothing of it was kept."
        )


class ArchiveRefusedError(InvalidInputError):
    code = "archive-refused"
    title = "The archive could do harm when unpacked"

    def __init__(self, problem: str) -> None:
        super().__init__(f"The zip archive was refused: {problem}. Nothing of it was kept.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a file, or a version, says of itself; `None` is what it does not say.

    `parameters` are elements of tensors, whatever they are for; `dtype` is the type most of them
    have; `context_length` is in tokens.
    """

    format: Format
    architecture: str | None = None
    parameters: int | None = None
    dtype: str | None = None
    quantisation: str | None = None
    context_length: int | None = None
    tensor_count: int | None = None


class FactsRepository(Protocol):
    async def put_file(self, version_id: VersionId, path: FilePath, facts: Facts | None) -> bool:
        """Keep what was read in a file of the version; tell whether that changed anything."""
        ...

    async def list_files(self, version_id: VersionId) -> Mapping[FilePath, Facts]: ...

    async def put_version(self, version_id: VersionId, facts: Facts | None) -> None: ...


def word(value: object) -> str | None:
    """Take a text out of a file if it is fit to be shown and searched for."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    return text if 1 <= len(text) <= MAX_WORD_CHARS and not has_invisible(text) else None


def count(value: object) -> int | None:
    """Take a number out of a file if it counts something."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 1 <= value <= MAX_NUMBER else None


def roll_up(files: Mapping[FilePath, Facts]) -> Facts | None:
    """Tell what the files say of their version together; `None` if no weights were read.

    A version may have one model in several forms, so not everything is summed: the largest set of
    weights speaks for it, and shards of one file are one set. What the set does not say itself,
    a `config.json` says: that beside it, else that nearest to the root.
    """
    sets: dict[tuple[str, ...], list[tuple[FilePath, Facts]]] = defaultdict(list)
    for path, facts in sorted(files.items(), key=lambda item: item[0].value):
        if facts.format in _WEIGHTS:
            shard = _SHARD.fullmatch(path.value)
            sets[shard.groups() if shard else (path.value,)].append((path, facts))
    if not sets:
        return None
    largest = max(sets.values(), key=lambda each: sum(facts.parameters or 0 for _, facts in each))
    joined = _join([facts for _, facts in largest])
    config = _config_for(largest[0][0], files)
    return joined if config is None else _complete(joined, config)


def _join(shards: Sequence[Facts]) -> Facts:
    main = max(shards, key=lambda facts: facts.parameters or 0)
    return Facts(
        format=main.format,
        architecture=_first(facts.architecture for facts in shards),
        parameters=_sum(facts.parameters for facts in shards),
        dtype=main.dtype,
        quantisation=_first([main.quantisation, *(facts.quantisation for facts in shards)]),
        context_length=_first(facts.context_length for facts in shards),
        tensor_count=_sum(facts.tensor_count for facts in shards),
    )


def _config_for(weights: FilePath, files: Mapping[FilePath, Facts]) -> Facts | None:
    folder = weights.value.rpartition("/")[0]
    configs = [path for path, facts in files.items() if facts.format == "config"]
    if not configs:
        return None
    nearest = min(
        configs,
        key=lambda path: (
            path.value.rpartition("/")[0] != folder,
            path.value.count("/"),
            path.value,
        ),
    )
    return files[nearest]


def _complete(facts: Facts, config: Facts) -> Facts:
    return replace(
        facts,
        architecture=facts.architecture or config.architecture,
        dtype=facts.dtype or config.dtype,
        quantisation=facts.quantisation or config.quantisation,
        context_length=facts.context_length or config.context_length,
    )


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return min(sum(known), MAX_NUMBER) if known else None
