"""What the runtime host needs from outside, and how it refuses."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from maas.model.public import WeightFile
from maas.shared.domain.errors import (
    GatewayTimeoutError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)

Mode: TypeAlias = Literal["generate", "embed"]
"""What a process is started for: llama.cpp writes text or embeds it, and not both well."""


class VersionNotServedError(NotFoundError):
    code = "version-not-served"
    title = "The runtime has no such version to run"

    def __init__(self) -> None:
        super().__init__(
            "The version is not there, or is neither ready nor deprecated, or its model is deleted."
        )


class RuntimeRequestError(InvalidInputError):
    code = "runtime-request"
    title = "The runtime cannot do what is asked for"


class UnfitWeightsError(UnavailableError):
    code = "weights-unfit"
    title = "The version has no files that the runtime can run"


class BrokenWeightsError(UnavailableError):
    code = "weights-broken"
    title = "The version's files cannot be loaded"


class RuntimeStorageFullError(StorageFullError):
    code = "runtime-storage-full"
    title = "The runtime has no room on its disk"


class RuntimeMemoryError(UnavailableError):
    code = "runtime-memory"
    title = "The model is larger than the runtime's memory"


class RuntimeBusyError(UnavailableError):
    code = "runtime-busy"
    title = "No loaded model can make room at the moment"

    def __init__(self) -> None:
        super().__init__(
            "All models that are loaded are answering, so this one cannot be loaded. Retry "
            "shortly, or give the runtime more memory.",
            retry_after=timedelta(seconds=5),
        )


class ModelLoadTimeoutError(GatewayTimeoutError):
    code = "model-load-timeout"
    title = "The model was not loaded in time"


class ModelProcessDiedError(UnavailableError):
    code = "model-process-died"
    title = "The process of the model ended"

    def __init__(self, *, retry_after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(
            "The process that runs this model ended, and is started again by the next call.",
            retry_after=retry_after,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStart:
    """What a process loads, and how; `name` is what its answers call the model."""

    mode: Mode
    path: Path
    name: str
    context_length: int
    answers_at_once: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a loaded model tells of itself."""

    embedding_length: int | None = None
    takes_tools: bool = False
    takes_system: bool = False


class ProcessAnswer(Protocol):
    """An answer whose head is there."""

    @property
    def status(self) -> int: ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Read on, once.

        Raises:
            ModelProcessDiedError: it breaks off.
        """
        ...


class ModelProcess(Protocol):
    """A process that has a model loaded, and answers as llama.cpp's server does."""

    @property
    def facts(self) -> ModelFacts: ...

    def post(self, path: str, body: bytes) -> AbstractAsyncContextManager[ProcessAnswer]:
        """Ask it; leaving the block early has it stop working on the answer.

        Raises:
            ModelProcessDiedError: it does not answer.
        """
        ...

    async def wait(self) -> None:
        """Return once it has ended, for whatever reason."""
        ...

    async def stop(self) -> None:
        """End it; it is gone when this returns."""
        ...


class ModelProcesses(Protocol):
    async def start(self, wanted: ModelStart) -> ModelProcess:
        """Start a process and return once it answers; one that does not is ended.

        Raises:
            BrokenWeightsError: it ended while it loaded the model.
            ModelLoadTimeoutError: it takes too long.
        """
        ...


class WeightCache(Protocol):
    """Files on this machine's disk, as they were uploaded."""

    async def take(self, file: WeightFile) -> Path:
        """Put a file together unless it is there, and keep it until it is given back.

        Raises:
            RuntimeStorageFullError: there is no room for it.
            UnavailableError: the registry does not give it.
        """
        ...

    def give_back(self, file: WeightFile) -> None:
        """Let a file go that was taken; it stays until others need its room."""
        ...
