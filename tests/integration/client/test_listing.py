"""Lists of registries that have much to say, or too much."""

import itertools
import json
from uuid import UUID

import pytest
from aiohttp import web

from maas.client import api as client_api
from maas.client.errors import ClientError, StrangeAnswerError
from maas.client.listing import list_models
from maas.client.registry import Registry
from maas.commands.model import spell_json
from tests.fakes.registry import FakeRegistry

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

MODELS = r"/api/v1/models"
TENANT = "01935d2e-0000-7000-8000-000000000009"


def model(number: int, **more: object) -> dict[str, object]:
    return {"id": str(UUID(int=number)), "name": f"bot-{number}", "framework": "other", **more}


async def test_a_list_without_end_is_not_kept(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_api, "MAX_LIST_BYTES", 4_000_000)
    numbers, filler = itertools.count(), "x" * 1_000_000

    async def flood(_: web.Request) -> web.StreamResponse:
        number = next(numbers)
        page = {"items": [model(number, more=filler)], "next_cursor": str(number)}
        return web.json_response(page)

    registry.lie("GET", MODELS, flood)

    async with registry.api() as api:
        with pytest.raises(ClientError, match="too long"):
            await list_models(api, limit=10_000)

    assert registry.count("GET", MODELS) == 4


async def test_what_nobody_prints_is_not_kept(registry: FakeRegistry) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        items = [model(number, more=["x"]) for number in range(100)]
        return web.json_response({"items": items, "next_cursor": None})

    registry.lie("GET", MODELS, answer)
    async with registry.api() as api:
        table = await list_models(api, limit=200)
        whole = await list_models(api, limit=200, keeps_all=True)

    assert len(table.cells) == len(whole.raw) == 100
    assert not any("more" in each for each in table.raw)
    assert all(each["more"] == ["x"] for each in whole.raw)


async def test_pages_may_be_empty_for_a_while(registry: FakeRegistry) -> None:
    async def sparse(request: web.Request) -> web.StreamResponse:
        at = int(request.query.get("cursor", "0"))
        items = [model(at)] if at in {3, 9} else []
        return web.json_response({"items": items, "next_cursor": str(at + 1) if at < 9 else None})

    registry.lie("GET", MODELS, sparse)

    async with registry.api() as api:
        found = await Registry(api=api).list_models(limit=10)

    assert [each.name for each in found] == ["bot-3", "bot-9"]


@pytest.mark.parametrize("is_circle", [True, False])
async def test_pages_that_do_not_end_are_not_gone_through(
    registry: FakeRegistry, *, is_circle: bool
) -> None:
    numbers = itertools.count()

    async def empty(_: web.Request) -> web.StreamResponse:
        cursor = "again" if is_circle else str(next(numbers))
        return web.json_response({"items": [], "next_cursor": cursor})

    registry.lie("GET", MODELS, empty)

    async with registry.api() as api:
        with pytest.raises(StrangeAnswerError, match="do not end"):
            await Registry(api=api).list_models(limit=10)


async def test_what_others_share_is_listed_with_whose_it_is(registry: FakeRegistry) -> None:
    foreign = registry.share("acme/bot", tenant=TENANT)

    async with registry.api() as api:
        rows = await list_models(api, limit=10, shared="true")
        own = await list_models(api, limit=10)

    assert rows.titles[-2:] == ("id", "tenant")
    assert [row[-2:] for row in rows.cells] == [(foreign, TENANT)]
    assert own.cells == []


async def test_the_newest_ready_version_is_found_without_reading_all(
    registry: FakeRegistry,
) -> None:
    registry.add("bot", "1.0.0", {})

    async def endless(request: web.Request) -> web.StreamResponse:
        at = int(request.query.get("cursor", "0"))
        version = {"version": str(at), "status": "ready" if at == 1 else "failed"}
        return web.json_response({"items": [version], "next_cursor": str(at + 1)})

    registry.lie("GET", r"/api/v1/models/[^/]+/versions", endless)

    async with registry.api() as api:
        _, version = await Registry(api=api).resolve("bot")

    assert version.version == "1"
    assert registry.count("GET", "/versions$") == 2


def test_json_is_text_that_steers_no_terminal() -> None:
    nasty = "a\u009b2J\u202e\x7f\u2028\ud800\U000e0001é\n模"

    text = spell_json([{"name": nasty}])

    assert json.loads(text) == [{"name": nasty}]
    assert all(each == "\n" or each.isprintable() for each in text)
    assert "é" in text
    assert "模" in text
