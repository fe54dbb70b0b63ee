"""The runtime host with processes of its own, which stand in for models."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from maas.model.public import VersionId
from tests.fakes.runtime import FakeWeights, version
from tests.integration.inference.runtime_hosts import ROOT, TOKEN, Host, running_host
from tests.integration.inference.stand_in_model import LEFT

SOUND, BROKEN = version(1), version(2)


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    monkeypatch.setenv("MAAS_SECRET_KEY", "not for the processes of models")
    weights = FakeWeights()
    weights.add(SOUND, b"sound")
    weights.add(BROKEN, b"broken")
    async with running_host(tmp_path, weights) as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield session


def say(content: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}], **more}


async def ask(
    client: aiohttp.ClientSession, host: Host, content: str, at: VersionId = SOUND
) -> tuple[int, Any]:
    async with client.post(f"{host.base(at)}/chat/completions", json=say(content)) as answer:
        return answer.status, await answer.json()


async def pid_of(client: aiohttp.ClientSession, host: Host) -> int:
    status, told = await ask(client, host, "pid")
    assert status == 200
    return int(told["choices"][0]["message"]["content"])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  another process does it
            await asyncio.sleep(0.01)


async def test_a_version_answers_from_a_process_of_its_own(
    host: Host, client: aiohttp.ClientSession
) -> None:
    first, second = await pid_of(client, host), await pid_of(client, host)

    assert first == second != os.getpid()


async def test_a_stream_comes_as_it_is_made(host: Host, client: aiohttp.ClientSession) -> None:
    body = say("short", stream=True, stream_options={"include_usage": True})

    async with client.post(f"{host.base(SOUND)}/chat/completions", json=body) as answer:
        text = await answer.text()

    events = [line.removeprefix("data: ") for line in text.split("\n") if line]
    assert answer.content_type == "text/event-stream"
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 1


async def test_a_caller_who_leaves_ends_the_work(host: Host, client: aiohttp.ClientSession) -> None:
    body = say("stream", stream=True)

    async with client.post(f"{host.base(SOUND)}/chat/completions", json=body) as answer:
        first = await answer.content.readline()

    assert first.startswith(b"data: ")
    await until((host.folder / "files" / LEFT).exists)
    await until(lambda: not any(each.answering for each in host.pool.list_loaded()))


async def test_a_killed_process_is_started_again_by_the_next_call(
    host: Host, client: aiohttp.ClientSession
) -> None:
    first = await pid_of(client, host)

    os.kill(first, signal.SIGKILL)
    await until(lambda: host.pool.list_loaded() == [])

    assert await pid_of(client, host) != first


async def test_a_process_that_dies_under_a_call_is_told(
    host: Host, client: aiohttp.ClientSession
) -> None:
    status, told = await ask(client, host, "die")

    assert status == 503
    assert told["error"]["code"] == "model-process-died"


async def test_a_stream_whose_process_dies_is_cut(
    host: Host, client: aiohttp.ClientSession
) -> None:
    body = say("stream", stream=True)

    async with client.post(f"{host.base(SOUND)}/chat/completions", json=body) as answer:
        event = json.loads((await answer.content.readline()).removeprefix(b"data: "))
        os.kill(int(event["choices"][0]["delta"]["content"]), signal.SIGKILL)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_weights_that_cannot_be_loaded_are_told(
    host: Host, client: aiohttp.ClientSession
) -> None:
    status, told = await ask(client, host, "hello", BROKEN)

    assert status == 503
    assert told["error"]["code"] == "weights-broken"
    assert told["error"]["type"] == "server_error"


async def test_a_version_that_is_not_there_is_told(
    host: Host, client: aiohttp.ClientSession
) -> None:
    status, told = await ask(client, host, "hello", version(9))

    assert (status, told["error"]["code"]) == (404, "version-not-served")


async def test_processes_of_models_know_no_secrets(
    host: Host, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, told = await ask(client, host, "environment")

    names = told["choices"][0]["message"]["content"]
    assert "PATH" in names
    assert [name for name in names if name.startswith("MAAS_")] == []


WRONG = [
    ("POST", "/versions/{id}/v1/chat/completions", b"[1]", 400),
    ("POST", "/versions/{id}/v1/chat/completions", b'{"a"', 400),
    ("POST", "/versions/{id}/v1/chat/completions", b'{"messages": []}', 400),
    ("POST", "/versions/{id}/v1/chat/completions", b"[" * 100_000, 400),
    ("GET", "/versions/{id}/v1/chat/completions", b"", 405),
    ("POST", "/versions/{id}/v1/models", b"{}", 404),
    ("POST", "/versions/------------------------------------/v1/completions", b"{}", 404),
    ("POST", "/versions/..%2f..%2fetc%2fpasswd/v1/completions", b"{}", 404),
    ("GET", "/metrics", b"", 404),
]


async def test_other_requests_are_refused(host: Host, client: aiohttp.ClientSession) -> None:
    refused = []
    for method, path, body, _ in WRONG:
        url = host.url + path.format(id=SOUND)
        async with client.request(method, url, data=body) as answer:
            told = await answer.json()
        refused.append((method, path, body, answer.status))
        assert set(told["error"]) == {"message", "type", "param", "code"}

    assert refused == WRONG


async def test_nobody_is_served_without_the_token(host: Host) -> None:
    answers = set()
    for path in ("/models", f"/versions/{SOUND}/v1/chat/completions", "/other"):
        for given in (None, "", "Bearer", f"Bearer {TOKEN}x", TOKEN, "Bearer \xe4"):
            headers = {} if given is None else {"authorization": given}
            async with (
                aiohttp.ClientSession(headers=headers) as stranger,
                stranger.post(host.url + path, json=say("hello")) as answer,
            ):
                answers.add(answer.status)

    assert answers == {401}
    assert host.pool.list_loaded() == []


async def test_what_is_loaded_is_told_to_operators(
    host: Host, client: aiohttp.ClientSession
) -> None:
    await ask(client, host, "hello")

    async with client.get(f"{host.url}/models") as answer:
        (model,) = (await answer.json())["models"]

    assert (model["version_id"], model["name"], model["answering"]) == (str(SOUND), "ada:1", 0)


async def test_anybody_may_ask_whether_it_lives(host: Host) -> None:
    async with (
        aiohttp.ClientSession() as stranger,
        stranger.get(f"{host.url}/health") as answer,
    ):
        assert answer.status == 200


async def test_processes_end_with_their_host(tmp_path: Path) -> None:
    weights = FakeWeights()
    weights.add(SOUND, b"sound")

    async with running_host(tmp_path, weights) as host, host.pool.using(SOUND, "generate") as on:
        pid = on.pid  # type: ignore[attr-defined]  # a LlamaProcess has one

    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_processes_do_not_outlive_a_host_that_is_killed(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = ROOT / "tests" / "integration" / "inference" / "runtime_hosts.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        str(tmp_path),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async for line in process.stdout:
        if line.startswith(b"pid "):
            break
    pid = int(line.split()[1])
    assert psutil.pid_exists(pid)

    process.send_signal(number)
    await process.wait()

    await until(lambda: not psutil.pid_exists(pid))
