"""What a runtime host has around it: a registry, a disk, and processes that answer."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from maas.inference.application.runtime_ports import (
    ModelFacts,
    ModelProcessDiedError,
    ModelStart,
)
from maas.model.public import VersionId, WeightFile, Weights

Asked = tuple[str, dict[str, Any]]
Answering = Callable[[str, dict[str, Any]], tuple[int, Sequence[bytes]]]


def version(number: int) -> VersionId:
    return VersionId(UUID(int=number))


def weight_file(content: bytes = b"weights", path: str = "model.gguf") -> WeightFile:
    return WeightFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


@dataclass(slots=True)
class FakeWeights:
    """Versions, and the bytes of their files by digest."""

    versions: dict[VersionId, Sequence[WeightFile]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    reads: int = 0
    may_read: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def __post_init__(self) -> None:
        self.may_read.set()

    def add(self, version_id: VersionId, *contents: bytes) -> Sequence[WeightFile]:
        files = [weight_file(each, f"{at}.gguf") for at, each in enumerate(contents)]
        self.versions[version_id] = files
        self.contents |= {file.sha256: each for file, each in zip(files, contents, strict=True)}
        return files

    async def find(self, version_id: VersionId) -> Weights | None:
        if version_id not in self.versions:
            return None
        return Weights(
            version_id=version_id,
            model_name="ada",
            version=str(version_id.int),
            files=self.versions[version_id],
        )

    async def read(self, file: WeightFile) -> AsyncGenerator[bytes, None]:
        self.reads += 1
        self.begun.release()
        await self.may_read.wait()
        content = self.contents[file.sha256]
        for start in range(0, len(content), 1024):
            yield content[start : start + 1024]


@dataclass(slots=True)
class FakeCache:
    taken: list[str] = field(default_factory=list)

    async def take(self, file: WeightFile) -> Path:
        self.taken.append(file.sha256)
        return Path("/nowhere") / file.sha256

    def give_back(self, file: WeightFile) -> None:
        self.taken.remove(file.sha256)


def say_hello(path: str, body: Mapping[str, Any]) -> tuple[int, Sequence[bytes]]:
    answer = {
        "id": "chatcmpl-of-llama",
        "object": "chat.completion",
        "created": 1,
        "model": "ada:1",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": f"seed {body.get('seed')}"},
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
    return 200, [json.dumps(answer).encode()]


@dataclass(slots=True)
class _FakeAnswer:
    status: int
    pieces: Sequence[bytes]

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for piece in self.pieces:
            if piece == DEATH:
                raise ModelProcessDiedError
            yield piece


DEATH = b"the process is killed here"


@dataclass(eq=False, slots=True)
class FakeProcess:
    started: ModelStart
    answering: Answering = say_hello
    facts: ModelFacts = field(default_factory=ModelFacts)
    asked: list[Asked] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncIterator[_FakeAnswer]:
        if self.ended.is_set():
            raise ModelProcessDiedError
        parsed = json.loads(body)
        self.asked.append((path, parsed))
        status, pieces = self.answering(path, parsed)
        yield _FakeAnswer(status, pieces)

    async def wait(self) -> None:
        await self.ended.wait()

    async def stop(self) -> None:
        self.ended.set()


@dataclass(slots=True)
class FakeProcesses:
    """Starts processes once it may; a refusal that is set is raised instead."""

    answering: Answering = say_hello
    facts: ModelFacts = field(default_factory=ModelFacts)
    refusal: Exception | None = None
    started: list[FakeProcess] = field(default_factory=list)
    may_start: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_start.set()

    async def start(self, wanted: ModelStart) -> FakeProcess:
        await self.may_start.wait()
        if self.refusal is not None:
            raise self.refusal
        process = FakeProcess(wanted, self.answering, self.facts)
        self.started.append(process)
        return process
