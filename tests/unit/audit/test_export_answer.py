"""However the sending of an export ends, what makes it ends too."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message, Receive, Send

from maas.audit.interface import export
from maas.audit.interface.export import PART_BYTES, ExportResponse

SCOPE = {"type": "http", "asgi": {"spec_version": "2.3"}}


class Source:
    """Chunks without end, or so many; knows whether it was closed."""

    def __init__(self, chunk: bytes = b"x", count: int | None = None) -> None:
        self.made = 0
        self.is_closed = False
        self._chunk = chunk
        self._count = count

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            while self._count is None or self.made < self._count:
                self.made += 1
                yield self._chunk
        finally:
            self.is_closed = True


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def answer(source: Source, send: Send, receive: Receive = never) -> None:
    await ExportResponse(source.chunks())(SCOPE, receive, send)


async def test_it_is_sent_in_small_parts() -> None:
    sent: list[Message] = []
    source = Source(b"x" * (2 * PART_BYTES + 1), count=2)

    async def send(message: Message) -> None:
        sent.append(message)

    await answer(source, send)

    sizes = [len(message["body"]) for message in sent[1:]]
    assert sizes == [PART_BYTES, PART_BYTES, 1] * 2 + [0]
    assert [message["more_body"] for message in sent[1:]] == [True] * 6 + [False]
    assert source.is_closed


async def test_a_client_who_hangs_up_ends_it_at_once() -> None:
    source, has_left = Source(), asyncio.Event()

    async def send(message: Message) -> None:
        if source.made == 3:
            has_left.set()
        # Otherwise this would be the only task that runs.
        await asyncio.sleep(0)

    async def receive() -> Message:
        await has_left.wait()
        return {"type": "http.disconnect"}

    await asyncio.wait_for(answer(source, send, receive), timeout=10)

    assert source.is_closed


async def test_a_client_who_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PATIENCE_SECONDS", 0.01)
    source, sent = Source(), list[Message]()

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    await asyncio.wait_for(answer(source, send), timeout=10)

    assert source.is_closed
    assert source.made == 1
    assert all(message.get("more_body", True) for message in sent)


async def test_a_broken_socket_ends_it() -> None:
    source = Source()

    async def send(message: Message) -> None:
        if source.made == 2:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await answer(source, send)

    assert source.is_closed


@pytest.mark.timeout(120)
def test_server_and_worker_do_without_pyarrow() -> None:
    code = "import sys, maas.main, maas.worker; assert 'pyarrow' not in sys.modules"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr
