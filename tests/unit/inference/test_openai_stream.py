"""Sending a stream: what it holds while it waits, and how it ends."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import pytest
from starlette.types import Message

from maas.inference.application.calls import StreamedAnswer
from maas.inference.domain.failures import BrokenAnswerError
from maas.inference.interface import openai_stream
from maas.inference.interface.leaving import LeaveWatch, Presence
from maas.inference.interface.openai_stream import EventStreamResponse
from maas.inference.public import DeploymentId
from maas.shared.interface.traffic import BODY_KEY, IncomingBody, Traffic


class Reader:
    """A client: what it got, and when it leaves."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.leaves = asyncio.Event()
        self.presence = Presence()
        self.takes = asyncio.Event()
        self.takes.set()
        self.traffic = Traffic(max_in_flight=1, in_flight=1)

    async def receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.takes.wait()
        self.got.append(message)

    async def read(self, rest: AsyncGenerator[bytes, None]) -> None:
        answer = StreamedAnswer(first=b"1", rest=rest, deployment_id=DeploymentId(UUID(int=1)))
        incoming = IncomingBody(self.receive, self.traffic, lambda: None)
        scope: dict[str, Any] = {BODY_KEY: incoming}
        response = EventStreamResponse(answer, self.presence, headers={})
        await response(scope, self.receive, self.send)

    @property
    def bodies(self) -> list[bytes]:
        return [each["body"] for each in self.got[1:]]


async def test_a_stream_holds_no_place_while_it_waits() -> None:
    reader, seen = Reader(), []

    async def rest() -> AsyncGenerator[bytes, None]:
        seen.append(reader.traffic.in_flight)
        yield b"2"
        seen.append(reader.traffic.in_flight)

    await reader.read(rest())

    assert (seen, reader.traffic.in_flight) == ([0, 0], 1)
    assert reader.bodies == [b"1", b"2", b""]
    assert [each["more_body"] for each in reader.got[1:]] == [True, True, False]


async def test_what_breaks_off_ends_with_an_error_and_no_terminator() -> None:
    reader = Reader()

    async def rest() -> AsyncGenerator[bytes, None]:
        yield b"2"
        raise BrokenAnswerError

    await reader.read(rest())

    assert reader.bodies[:2] == [b"1", b"2"]
    assert b'"code":"upstream-broke-off"' in reader.bodies[2]
    assert reader.bodies[3:] == [b""]


async def test_a_reader_who_leaves_ends_it() -> None:
    reader, ended = Reader(), []

    async def rest() -> AsyncGenerator[bytes, None]:
        try:
            reader.leaves.set()
            await asyncio.Event().wait()
            yield b"never"
        finally:
            ended.append(True)

    await reader.read(rest())

    assert (ended, reader.bodies, reader.traffic.in_flight) == ([True], [b"1"], 1)
    assert not reader.presence.is_there()


async def test_a_reader_who_takes_nothing_any_more_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openai_stream, "PATIENCE_SECONDS", 0.01)
    reader, was_there = Reader(), []

    async def rest() -> AsyncGenerator[bytes, None]:
        try:
            reader.takes.clear()
            yield b"2"
        finally:
            was_there.append(reader.presence.is_there())

    await reader.read(rest())

    assert was_there == [False]


async def test_a_reader_who_leaves_twice_at_once_is_no_shutdown() -> None:
    reader = Reader()

    async def leave() -> bool:
        watch = LeaveWatch(reader.receive)
        watch.give_up()
        watch.give_up()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return watch.is_why_cancelled()
        finally:
            watch.stop()
        return False

    assert await asyncio.create_task(leave())


async def test_patience_with_a_reader_ends_with_what_was_sent() -> None:
    reader = Reader()
    reader.takes.clear()
    patience = openai_stream._Patience(reader.send, LeaveWatch(reader.receive))
    sending = asyncio.create_task(patience.send({"type": "http.response.body"}))
    await asyncio.sleep(0)
    is_waiting = [patience._since is not None]

    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending

    is_waiting.append(patience._since is not None)
    assert is_waiting == [True, False]
    patience.stop()
    patience._watch.stop()


async def test_a_shutdown_is_not_taken_for_a_reader_who_left_and_is_told() -> None:
    reader, was_there = Reader(), []

    async def rest() -> AsyncGenerator[bytes, None]:
        try:
            await asyncio.Event().wait()
            yield b"never"
        finally:
            was_there.append(reader.presence.is_there())

    sending = asyncio.create_task(reader.read(rest()))
    while not reader.got:  # noqa: ASYNC110  a few turns of the loop
        await asyncio.sleep(0)
    sending.cancel()

    with pytest.raises(asyncio.CancelledError):
        await sending
    assert was_there == [True]
    assert reader.bodies[0] == b"1"
    assert b'"code":"server-stopped"' in reader.bodies[1]
    assert reader.bodies[2:] == [b""]
