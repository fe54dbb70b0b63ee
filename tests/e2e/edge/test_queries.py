"""Query parameters nobody would look at are refused, for a filter misspelt filters nothing."""

from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, Query

from maas.shared.interface.pagination import Paging
from maas.shared.interface.readers import StrictRoute
from tests.fakes.edge import make_edge

pytestmark = pytest.mark.e2e

router = APIRouter(route_class=StrictRoute)


async def _colour(colour: str | None = None) -> str | None:
    return colour


@router.get("/things")
async def list_things(
    page: Paging,
    colour: Annotated[str | None, Depends(_colour)],
    tags: Annotated[list[str] | None, Query(alias="tag")] = None,
) -> list[object]:
    return [page.limit, colour, tags]


@router.delete("/things")
async def delete_things() -> None: ...


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with make_edge(router).client(base_url="http://maas.test/api/v1/") as client:
        yield client


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("", [50, None, None]),
        ("?", [50, None, None]),
        ("?limit=3&colour=red&include_total=true", [3, "red", None]),
        ("?tag=a&tag=b", [50, None, ["a", "b"]]),
        ("?colour=", [50, "", None]),
    ],
)
async def test_what_the_route_declares_is_taken(
    client: httpx.AsyncClient, query: str, answer: object
) -> None:
    assert (await client.get(f"things{query}")).json() == answer


@pytest.mark.parametrize(
    ("query", "name", "kind"),
    [
        ("color=red", "color", "unknown_parameter"),
        ("Colour=red", "Colour", "unknown_parameter"),
        ("colour=red&tags=a", "tags", "unknown_parameter"),
        ("color", "color", "unknown_parameter"),
        ("=", "", "unknown_parameter"),
        ("x=1&x=2", "x", "unknown_parameter"),
        ("limit=1&limit=1", "limit", "repeated_parameter"),
        ("colour=red&colour=blue", "colour", "repeated_parameter"),
        ("colour=red&%63olour=blue", "colour", "repeated_parameter"),
    ],
)
async def test_anything_else_is_refused(
    client: httpx.AsyncClient, query: str, name: str, kind: str
) -> None:
    answer = await client.get(f"things?{query}")

    assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed")
    (error,) = answer.json()["errors"]
    assert (error["loc"], error["type"]) == (["query", name], kind)


async def test_writes_are_as_strict(client: httpx.AsyncClient) -> None:
    answer = await client.delete("things?force=true")

    assert answer.status_code == 422


async def test_many_of_them_are_told_in_part(client: httpx.AsyncClient) -> None:
    answer = await client.get("things?" + "&".join(f"x{n}=" for n in range(500)))

    assert (answer.status_code, len(answer.json()["errors"])) == (422, 50)
