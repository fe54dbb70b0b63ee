"""Calls of versions: shared out to the version's process, and put together again."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from maas.inference.application.runtime_answers import (
    EventReader,
    StreamShape,
    merge,
    refuse,
    spell,
    spell_event,
)
from maas.inference.application.runtime_pool import RuntimePool
from maas.inference.application.runtime_ports import (
    ModelProcess,
    ModelProcessDiedError,
    ProcessAnswer,
)
from maas.inference.application.runtime_requests import MODES, Plan, Share, plan
from maas.inference.public import CallKind
from maas.model.public import VersionId

PATHS: Final[Mapping[CallKind, str]] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}

OK: Final = 200

MAX_WAITING_EVENTS: Final = 64
"""So many events wait for a caller who reads slowly; then the process waits too."""

_Event: TypeAlias = tuple[Share, dict[str, Any]]


class _RefusedError(Exception):
    """A process refuses one share, and with it the call."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeAnswer:
    """An answer: a whole body, or a stream of events whose head is settled."""

    status: int
    body: bytes = b""
    events: AsyncGenerator[bytes, None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeService:
    pool: RuntimePool

    @asynccontextmanager
    async def answering(
        self, version_id: VersionId, kind: CallKind, body: Mapping[str, object]
    ) -> AsyncIterator[RuntimeAnswer]:
        """Answer a call; leaving the block ends what the process still does for it.

        Raises:
            RuntimeRequestError: it asks for what cannot be done here.
            MaasError: whatever keeps the version from being run, as `RuntimePool.using` says.
        """
        async with self.pool.using(version_id, MODES[kind]) as process:
            shared = plan(kind, body, process.facts)
            if not shared.is_stream:
                yield await _answer_whole(process, shared)
                return
            async with AsyncExitStack() as stack:
                share = shared.shares[0]
                first = await stack.enter_async_context(_ask(process, shared, share))
                if first.status != OK:
                    yield _refusal(first.status, await _read(first))
                    return
                events = _stream(process, shared, first)
                stack.push_async_callback(events.aclose)
                yield RuntimeAnswer(status=OK, events=events)


def _ask(
    process: ModelProcess, shared: Plan, share: Share
) -> AbstractAsyncContextManager[ProcessAnswer]:
    return process.post(PATHS[shared.kind], spell(share.body))


def _refusal(status: int, body: bytes) -> RuntimeAnswer:
    told, error = refuse(status, body)
    return RuntimeAnswer(status=told, body=spell(error))


async def _read(answer: ProcessAnswer) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks()])


async def _answer_whole(process: ModelProcess, shared: Plan) -> RuntimeAnswer:
    async def ask(share: Share) -> dict[str, Any]:
        async with _ask(process, shared, share) as answer:
            body = await _read(answer)
        if answer.status != OK:
            raise _RefusedError(answer.status, body)
        told: dict[str, Any] = json.loads(body)
        return told

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(share)) for share in shared.shares]
    except ExceptionGroup as several:
        # The first one cancelled the others, so it says enough.
        reason = several.exceptions[0]
        if isinstance(reason, _RefusedError):
            return _refusal(reason.status, reason.body)
        raise reason from None
    return RuntimeAnswer(status=OK, body=spell(merge(shared, [task.result() for task in tasks])))


async def _stream(
    process: ModelProcess, shared: Plan, first: ProcessAnswer
) -> AsyncGenerator[bytes, None]:
    """Give the events of all shares as they come; ends early, without `[DONE]`, after an error."""
    shape = StreamShape(shared)
    events: asyncio.Queue[_Event | Exception | None] = asyncio.Queue(MAX_WAITING_EVENTS)
    readers = [asyncio.create_task(_read_events(shared.shares[0], first, events))]
    readers += [
        asyncio.create_task(_ask_for_events(process, shared, share, events))
        for share in shared.shares[1:]
    ]
    left = len(readers)
    try:
        while left:
            event = await events.get()
            if event is None:
                left -= 1
            elif isinstance(event, _RefusedError):
                yield spell_event(refuse(event.status, event.body)[1])
                return
            elif isinstance(event, Exception):
                raise event
            elif (passed := shape.pass_on(*event)) is not None:
                yield spell_event(passed)
        for last in shape.end():
            yield last
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _ask_for_events(
    process: ModelProcess,
    shared: Plan,
    share: Share,
    events: "asyncio.Queue[_Event | Exception | None]",
) -> None:
    try:
        async with _ask(process, shared, share) as answer:
            if answer.status != OK:
                await events.put(_RefusedError(answer.status, await _read(answer)))
                return
            await _read_events(share, answer, events)
    except ModelProcessDiedError as exc:
        await events.put(exc)


async def _read_events(
    share: Share, answer: ProcessAnswer, events: "asyncio.Queue[_Event | Exception | None]"
) -> None:
    reader = EventReader()
    try:
        async for chunk in answer.chunks():
            for event in reader.feed(chunk):
                if "error" in event:
                    await events.put(_RefusedError(500, json.dumps(event).encode()))
                    return
                await events.put((share, event))
    except (ModelProcessDiedError, ValueError) as exc:
        await events.put(exc)
        return
    await events.put(None if reader.is_whole else ModelProcessDiedError())
