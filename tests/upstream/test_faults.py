"""What no honest server does, seen from a bare socket or a plain client; and the commands to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.upstream.desk import Desk
from tests.upstream.process import running_upstream
from tests.upstream.scripts import PRESETS, Script
from tests.upstream.server import Upstream, serving

HURRY = httpx.Timeout(20, read=0.2)
PLENTY = httpx.Timeout(20)
ASK: Mapping[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "stream": True}


@asynccontextmanager
async def calling(desk: Desk) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(Upstream(desk)) as port,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=PLENTY, trust_env=False
        ) as client,
    ):
        yield client


async def told_by(desk: Desk, model: str, patience: httpx.Timeout = PLENTY) -> bytes:
    """Ask a model for a stream, and give what came before it ended in whatever way."""
    async with calling(desk) as client:
        answer = await client.post(
            "/v1/chat/completions", json={**ASK, "model": model}, timeout=patience
        )
    return answer.content


@pytest.mark.parametrize("model", ["hangs-up", "resets"])
async def test_it_cuts_before_the_head(model: str) -> None:
    with pytest.raises(httpx.TransportError):
        await told_by(Desk(), model)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("breaks-off", httpx.RemoteProtocolError),
        ("breaks-off-by-reset", httpx.ReadError),
        ("speaks-no-http", httpx.RemoteProtocolError),
    ],
)
async def test_it_cuts_in_the_middle(model: str, error: type[Exception]) -> None:
    desk = Desk()

    with pytest.raises(error):
        await told_by(desk, model)

    (call,) = desk.ledger.calls
    assert not call.is_complete
    # The first event says who speaks; two tokens were generated until the cut.
    assert call.completion_tokens == (0 if model == "speaks-no-http" else 2)


async def test_a_reset_is_one_on_the_wire() -> None:
    async with serving(Upstream()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /as/resets/v1/models HTTP/1.1\r\nhost: x\r\n\r\n")

        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


@pytest.mark.parametrize("model", ["never-answers", "stalls"])
async def test_it_keeps_a_caller_waiting(model: str) -> None:
    desk = Desk()

    with pytest.raises(httpx.ReadTimeout):
        await told_by(desk, model, HURRY)

    assert desk.ledger.calls[0].is_complete is False


async def test_it_drips() -> None:
    desk = Desk()
    async with calling(desk) as client, client.stream("GET", "/as/drips/v1/models") as answer:
        parts = answer.aiter_raw()
        got = b"".join([await anext(parts) for _ in range(3)])

    assert len(got) < 10
    assert desk.ledger.calls[0].is_complete is False


async def test_who_hangs_up_has_had_what_was_generated() -> None:
    desk = Desk()
    desk.scripts.put("slow", Script(chunk_delay=0.01, tokens=5_000))
    asked = {**ASK, "model": "slow"}
    async with (
        calling(desk) as client,
        client.stream("POST", "/v1/chat/completions", json=asked) as answer,
    ):
        parts = answer.aiter_raw()
        for _ in range(5):
            await anext(parts)

    (call,) = desk.ledger.calls
    assert 0 < call.completion_tokens < 5_000
    assert not call.is_complete


async def test_it_says_too_much() -> None:
    got = 0
    async with (
        calling(Desk()) as client,
        client.stream("GET", "/as/says-too-much/v1/models") as answer,
    ):
        async for part in answer.aiter_raw():
            got += len(part)
            if got > 4_000_000:
                break

    assert got > 4_000_000


@pytest.mark.parametrize(
    ("name", "status", "content_type", "body"),
    [
        ("says-html", 200, "text/html", b"<!doctype"),
        ("says-html-404", 404, "text/html", b"<!doctype"),
        ("says-invalid-json", 200, "application/json", b'{"object"'),
        ("says-other-json", 200, "application/json", b'{"hello"'),
        ("says-nothing", 200, "application/json", b""),
        ("mistakes-its-type", 200, "text/plain", b'{"object"'),
        ("redirects", 307, "application/json", b""),
    ],
)
async def test_it_answers_oddly(name: str, status: int, content_type: str, body: bytes) -> None:
    async with calling(Desk()) as client:
        answer = await client.get(f"/as/{name}/v1/models")

    assert (answer.status_code, answer.headers["content-type"]) == (status, content_type)
    assert answer.content.startswith(body)
    assert bool(answer.content) == bool(body)
    assert ("Location" in answer.headers) == (status == 307)


async def test_it_can_quote_the_whole_key() -> None:
    async with calling(Desk()) as client:
        answer = await client.get(
            "/as/says-401-and-the-key/v1/models", headers={"Authorization": "Bearer sk-secret"}
        )

    assert "sk-secret" in answer.text
    assert answer.headers["x-your-key"] == "sk-secret"


async def test_every_preset_is_a_command() -> None:
    assert all(isinstance(script, Script) for script in PRESETS.values())
    assert all("_" not in name for name in PRESETS)


async def test_several_requests_of_a_connection_are_answered_in_order() -> None:
    desk = Desk()
    desk.scripts.put("late", Script(head_delay=0.05))
    async with serving(Upstream(desk)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        asked = [b"/as/late/v1/models/gpt-4o", b"/v1/models/gpt-4o-mini"]
        for path in asked:
            writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path)
        names = []
        for _ in asked:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            names.append(json.loads(await reader.readexactly(size))["id"])
        writer.close()

    assert names == ["gpt-4o", "gpt-4o-mini"]


@pytest.mark.parametrize(
    ("header", "value"),
    [("Authorization", "Bearer sk"), ("x-api-key", "sk"), ("api-key", "sk")],
)
async def test_it_takes_keys_in_each_style(header: str, value: str) -> None:
    async with calling(Desk(keys=frozenset({"sk"}))) as client:
        answers = [
            await client.get("/v1/models", headers={header: value}),
            await client.get("/v1/models", headers={header: f"{value}x"}),
            await client.get("/v1/key"),
        ]

    assert [answer.status_code for answer in answers] == [200, 401, 401]


async def test_commands_that_are_none_are_refused() -> None:
    async with calling(Desk()) as client:
        wrong = await client.put("/_script/x", json={"explode": True})
        unknown = await client.put("/_what")

    assert (wrong.status_code, unknown.status_code) == (400, 404)


def test_a_process_of_its_own_obeys_and_keeps_books(tmp_path: Path) -> None:
    with running_upstream(keys=("one",), tls_folder=tmp_path) as upstream:
        upstream.put("keys", {"keys": ["two"]})
        upstream.put("models", {"models": ["only"]})
        upstream.script("only", Script(status=503, times=1))

        answers = [
            httpx.post(
                f"{upstream.url}/v1/chat/completions",
                headers={"Authorization": "Bearer two"},
                json={**ASK, "model": "only"},
                trust_env=False,
            )
            for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [503, 200]
        told = upstream.ledger()
        assert set(upstream.tls) == {"good", "unknown", "expired", "wrong-host"}
        assert upstream.ca_file is not None
        assert upstream.ca_file.read_text().startswith("-----BEGIN CERTIFICATE")

    assert told["totals"]["by_status"] == {"503": 1, "200": 1}
    assert told["totals"]["completion_tokens"] == 16
