"""A supplier's models over HTTP: added, changed, priced, and seen by whom they are granted to."""

from datetime import datetime, timedelta

import httpx
import pytest

from maas.shared.infrastructure.clock import SystemClock
from tests.e2e.conftest import Person

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

PRICE = {"currency": "USD", "input": "0.150", "cached": "0.075", "output": "0.6"}


@pytest.fixture
async def provider(api: httpx.AsyncClient) -> str:
    answer = await api.post("providers", json={"name": "OpenAI", "type": "openai"})
    assert answer.status_code == 201, answer.text
    return f"providers/{answer.json()['id']}"


async def add(api: httpx.AsyncClient, provider: str, **body: object) -> httpx.Response:
    return await api.post(f"{provider}/models", json={"name": "gpt-4o-mini", **body})


async def test_a_model_lives_and_its_name_is_free_again(
    api: httpx.AsyncClient, provider: str
) -> None:
    added = await add(api, provider, capabilities=["embeddings", "chat", "chat"])
    twice = await add(api, provider)
    path = added.headers["Location"].removeprefix("/api/v1/")
    changed = await api.put(
        path, json={"context_length": 128_000}, headers={"If-Match": added.headers["ETag"]}
    )
    late = await api.put(
        path, json={"status": "disabled"}, headers={"If-Match": added.headers["ETag"]}
    )
    renamed = await api.put(path, json={"name": "gpt-4o"})
    deleted = await api.delete(path)
    again = await add(api, provider)

    assert (added.status_code, twice.status_code) == (201, 409)
    assert twice.json()["code"] == "provider-model-taken"
    assert added.json()["capabilities"] == ["chat", "embeddings"]
    assert changed.json()["context_length"] == 128_000
    # Its prices, and the bills by them, are that model's.
    assert [error["type"] for error in renamed.json()["errors"]] == ["extra_forbidden"]
    assert (late.status_code, deleted.status_code, again.status_code) == (412, 204, 201)
    listed = await api.get(f"{provider}/models?include_total=true")
    assert [item["id"] for item in listed.json()["items"]] == [again.json()["id"]]
    assert listed.json()["total"] == 1
    assert (await api.get(path)).json()["code"] == "provider-model-not-found"


async def test_prices_are_a_history_that_only_grows(api: httpx.AsyncClient, provider: str) -> None:
    model = (await add(api, provider)).headers["Location"].removeprefix("/api/v1/")
    before = SystemClock().now()
    next_week = before + timedelta(days=7)
    first = await api.post(f"{model}/prices", json=PRICE)
    later = await api.post(
        f"{model}/prices", json={**PRICE, "input": "0.1", "valid_from": next_week.isoformat()}
    )
    better = await api.post(
        f"{model}/prices", json={**PRICE, "input": "0.09", "valid_from": next_week.isoformat()}
    )
    yuan = await api.post(f"{model}/prices", json={**PRICE, "currency": "CNY"})
    past = await api.post(f"{model}/prices", json={**PRICE, "valid_from": before.isoformat()})

    assert [a.status_code for a in (first, later, better, yuan)] == [201] * 4
    assert first.json()["input"] == "0.15"
    assert (past.status_code, past.json()["code"]) == (422, "price-in-the-past")

    async def held(at: datetime, **wanted: str) -> list[str]:
        answer = await api.get(f"{model}/prices", params={"at": at.isoformat(), **wanted})
        return [f"{item['currency']} {item['input']}" for item in answer.json()["items"]]

    assert await held(before) == []
    assert sorted(await held(SystemClock().now())) == ["CNY 0.15", "USD 0.15"]
    assert await held(next_week, currency="USD") == ["USD 0.09"]
    everything = await api.get(f"{model}/prices?include_total=true")
    assert everything.json()["total"] == 4
    assert everything.json()["items"][0]["id"] == better.json()["id"]
    for each in (first, later, better):
        shown = await api.get(each.headers["Location"].removeprefix("/api/v1/"))
        assert shown.json() == each.json()
    none = await api.get(f"{model}/prices/{provider.rpartition('/')[2]}")
    assert none.json()["code"] == "price-not-found"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"input": "-1"}, "invalid-unit-price"),
        ({"input": 0.15}, "string_type"),
        ({"currency": "usd"}, "invalid-currency"),
        ({"output": None}, "string_type"),
        ({"discount": "1"}, "extra_forbidden"),
    ],
)
async def test_what_is_no_price_is_refused(
    api: httpx.AsyncClient, provider: str, wrong: dict[str, object], code: str
) -> None:
    model = (await add(api, provider)).headers["Location"].removeprefix("/api/v1/")

    answer = await api.post(f"{model}/prices", json={**PRICE, **wrong})

    assert answer.status_code == 422
    assert [error["type"] for error in answer.json()["errors"]] == [code]


async def test_another_tenant_reads_once_granted_and_never_changes(
    other: tuple[str, dict[str, str]], operator: Person, api: httpx.AsyncClient, provider: str
) -> None:
    tenant, theirs = other
    model = (await add(api, provider)).headers["Location"].removeprefix("/api/v1/")
    await api.post(f"{model}/prices", json=PRICE)
    paths = (f"{provider}/models", model, f"{model}/prices")
    unseen = [await api.get(path, headers=theirs) for path in paths]
    granted = await api.put(f"{provider}/grants/{tenant}", headers=operator.headers)
    seen = [await api.get(path, headers=theirs) for path in paths]
    changed = [
        await api.put(model, json={"status": "disabled"}, headers=theirs),
        await api.post(f"{model}/prices", json=PRICE, headers=theirs),
        await api.delete(model, headers=theirs),
    ]

    assert [answer.status_code for answer in unseen] == [404] * 3
    assert granted.status_code == 201, granted.text
    assert [answer.status_code for answer in seen] == [200] * 3
    assert seen[1].json()["created_by"] is None
    assert seen[2].json()["items"][0]["created_by"] is None
    assert [answer.status_code for answer in changed] == [404] * 3
