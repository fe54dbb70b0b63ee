"""Models by their exact names."""

import unicodedata

import httpx
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


async def find(api: httpx.AsyncClient, name: str, **also: str) -> list[str]:
    answer = await api.get("models", params={"name": name, **also})
    assert answer.status_code == 200, answer.text
    return [model["id"] for model in answer.json()["items"]]


async def make(api: httpx.AsyncClient, name: str, **also: str) -> str:
    made = await api.post("models", json={"name": name, "framework": "gguf", **also})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def test_a_name_is_all_of_the_name(api: httpx.AsyncClient) -> None:
    bot, longer = await make(api, "acme/bot"), await make(api, "acme/bot:7b")
    gone, accented = await make(api, "acme/gone"), await make(api, "acme/é")
    await api.delete(f"models/{gone}")

    assert await find(api, "acme/bot") == [bot]
    assert await find(api, "acme/bot:7b") == [longer]
    assert await find(api, "acme/gone") == []
    assert await find(api, "acme/gone", deleted="true") == [gone]
    assert await find(api, unicodedata.normalize("NFD", "acme/é")) == [accented]
    assert await find(api, "Acme/bot") == await find(api, "acme/b") == await find(api, "%") == []
    assert await find(api, "acme/bot", framework="onnx") == []
    assert (await api.get("models", params={"name": ""})).status_code == 422
