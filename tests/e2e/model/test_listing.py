"""The files of a version, a page at a time."""

import httpx
import pytest

from tests.e2e.model.conftest import make_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

PATHS = ["a", "b/数据", "b/最后", "c d", "e"]


@pytest.fixture
async def files(api: httpx.AsyncClient) -> str:
    path = f"{await make_version(api)}/files"
    for name in reversed(PATHS):
        assert (await api.put(f"{path}/{name}", content=name.encode())).status_code == 201
    return path


async def test_pages_follow_one_another(api: httpx.AsyncClient, files: str) -> None:
    pages: list[list[str]] = []
    cursor = None
    while not pages or cursor is not None:
        query = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = (await api.get(files, params=query)).json()
        pages.append([item["path"] for item in page["items"]])
        cursor = page["next_cursor"]

    whole = (await api.get(files)).json()
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [path for page in pages for path in page] == [i["path"] for i in whole["items"]]
    assert {item["path"] for item in whole["items"]} == set(PATHS)
    assert (whole["next_cursor"], "total" in whole) == (None, False)


async def test_pages_do_not_shift(api: httpx.AsyncClient, files: str) -> None:
    first = (await api.get(files, params={"limit": 2})).json()
    await api.put(f"{files}/0", content=b"0")
    await api.delete(f"{files}/{first['items'][-1]['path']}")

    rest = (await api.get(files, params={"cursor": first["next_cursor"]})).json()

    seen = [item["path"] for item in first["items"] + rest["items"]]
    assert sorted(seen) == sorted(PATHS)


async def test_the_total_is_told_when_asked_for(api: httpx.AsyncClient, files: str) -> None:
    page = (await api.get(files, params={"limit": 1, "include_total": "true"})).json()

    assert (len(page["items"]), page["total"]) == (1, len(PATHS))


@pytest.mark.parametrize("cursor", ["", "AA", "nonsense!", "x" * 4000])
async def test_a_cursor_that_is_not_ours_is_refused(
    api: httpx.AsyncClient, files: str, cursor: str
) -> None:
    answer = await api.get(files, params={"cursor": cursor})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["query", "cursor"]
