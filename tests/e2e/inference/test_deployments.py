"""Deployments over HTTP: named, changed, granted, found by whoever may call them, let go."""

import json
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest

from maas.shared.domain.ids import new_id
from tests.e2e.conftest import Flush, MakePerson, Person
from tests.factories.accounts import PASSWORD

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

Other: TypeAlias = tuple[str, dict[str, str]]
"""Another tenant: its id, and the headers of its administrator."""

EVENTS = """
    SELECT action, changes FROM audit_log, LATERAL (
        SELECT convert_from(payload, 'UTF8')::jsonb -> 'changes' AS changes) told
    WHERE resource_kind = 'deployment' ORDER BY seq
"""


@pytest.fixture
async def operator(make_person: MakePerson) -> Person:
    return await make_person("olga", roles=("admin", "platform_admin"))


@pytest.fixture
async def otto(make_person: MakePerson) -> Person:
    """Who will administer another tenant."""
    return await make_person("otto")


@pytest.fixture
async def other(operator: Person, otto: Person, api: httpx.AsyncClient) -> Other:
    users = (await api.get("admin/users", params={"q": otto.username})).json()["items"]
    tenant = await api.post(
        "admin/tenants",
        json={"slug": "other", "name": "Other", "admin_id": users[0]["id"]},
        headers=operator.headers,
    )
    login = await api.post(
        "auth/login",
        json={"username": otto.username, "password": PASSWORD, "tenant": "other"},
    )
    return tenant.json()["id"], {"Authorization": f"Bearer {login.json()['access_token']}"}


async def add_model(api: httpx.AsyncClient, name: str = "gpt-4o-mini") -> str:
    provider = await api.post("providers", json={"name": f"of {name}", "type": "openai"})
    path = provider.headers["Location"].removeprefix("/api/v1/")
    made = await api.post(f"{path}/models", json={"name": name})
    return str(made.json()["id"])


def leading_to(model_id: str, **values: Any) -> dict[str, Any]:
    return {"kind": "provider", "provider_model_id": model_id, **values}


async def deploy(
    api: httpx.AsyncClient,
    name: str = "acme/bot:7b",
    *targets: dict[str, Any],
    headers: dict[str, str] | None = None,
    **values: Any,
) -> httpx.Response:
    wanted = list(targets) or [leading_to(await add_model(api, f"m-{new_id()}"))]
    body = {"name": name, "targets": wanted, **values}
    return await api.post("deployments", json=body, headers=headers)


def path_of(answer: httpx.Response) -> str:
    return answer.headers["Location"].removeprefix("/api/v1/")


def matching(answer: httpx.Response) -> dict[str, str]:
    return {"If-Match": answer.headers["ETag"]}


async def test_it_is_made_read_changed_and_deleted(api: httpx.AsyncClient) -> None:
    first, second = await add_model(api, "a"), await add_model(api, "b")
    made = await deploy(api, "acme/bot:7b", leading_to(first, priority=3), currency="EUR")
    path = path_of(made)
    blind = await api.put(path, json={"status": "disabled"})
    changed = await api.put(
        path,
        json={"targets": [leading_to(second), leading_to(first, weight=9)], "currency": None},
        headers=matching(made),
    )
    stale = await api.put(path, json={"max_choices": 4}, headers=matching(made))
    same = await api.put(path, json={"status": "active"}, headers=matching(changed))
    read, listed = await api.get(path), await api.get("deployments")
    blind_end = await api.delete(path)
    gone = await api.delete(path, headers=matching(changed))

    before, after = made.json(), changed.json()
    assert (made.status_code, before["currency"], before["status"]) == (201, "EUR", "active")
    assert [blind.status_code, stale.status_code, blind_end.status_code] == [428, 412, 428]
    assert (changed.status_code, after["currency"]) == (200, None)
    assert [each["provider_model_id"] for each in after["targets"]] == [second, first]
    assert after["targets"][1]["id"] == before["targets"][0]["id"]
    assert (after["targets"][1]["priority"], after["targets"][1]["weight"]) == (0, 9)
    assert same.headers["ETag"] == changed.headers["ETag"] == read.headers["ETag"]
    assert read.json() == after
    assert listed.json()["items"] == [after]
    assert gone.status_code == 204
    assert (await api.get(path)).json()["code"] == "deployment-not-found"
    assert (await deploy(api)).status_code == 201


async def test_a_name_is_taken_once_and_case_matters(api: httpx.AsyncClient) -> None:
    made = [await deploy(api, name) for name in ("caf\u00e9", "cafe\u0301", "CAF\u00c9", "no/", "")]
    found = await api.get("deployments", params={"name": "cafe\u0301"})

    assert [answer.status_code for answer in made] == [201, 409, 201, 422, 422]
    assert made[1].json()["code"] == "deployment-name-taken"
    assert made[3].json()["errors"][0]["type"] == "invalid-deployment-name"
    assert [each["name"] for each in found.json()["items"]] == ["caf\u00e9"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"targets": []},
        {"targets": [{"kind": "provider"}]},
        {"targets": [{"kind": "local", "model_id": str(new_id())}]},
        {"targets": [{"kind": "local", "model_id": str(new_id()), "version": "1", "alias": "a"}]},
        {"targets": [{"kind": "else", "model_id": str(new_id())}]},
        {"targets": [leading_to(str(new_id()), priority=101)]},
        {"targets": [leading_to(str(new_id()), weight=0)]},
        {"targets": [leading_to(str(new_id()), price={"currency": "USD"})]},
        {"targets": [leading_to(str(new_id())) for _ in range(33)]},
        {"currency": "usd"},
        {"max_body_bytes": 32 * 1024**2 + 1},
        {"capture_days": 0},
        {"cache_seconds": True},
        {"unheard_of": 1},
    ],
)
async def test_what_is_wrong_in_itself_is_refused(
    api: httpx.AsyncClient, wrong: dict[str, Any]
) -> None:
    body = {"name": "bot", "targets": [leading_to(str(new_id()))], **wrong}

    refused = await api.post("deployments", json=body)

    assert (refused.status_code, refused.json()["code"]) == (422, "validation-failed")


async def test_a_target_has_to_be_there_and_but_once(other: Other, api: httpx.AsyncClient) -> None:
    _, theirs = other
    model_id = await add_model(api)
    foreign = await api.post(
        "deployments",
        json={"name": "bot", "targets": [leading_to(model_id)]},
        headers=theirs,
    )
    missing = await deploy(api, "bot", leading_to(model_id), leading_to(str(new_id())))
    twice = await deploy(api, "bot", leading_to(model_id), leading_to(model_id, weight=2))

    assert [(each.status_code, each.json()["code"]) for each in (foreign, missing, twice)] == [
        (422, "target-missing"),
        (422, "target-missing"),
        (422, "target-twice"),
    ]
    assert missing.json()["errors"][0]["loc"] == ["body", "targets", 1]
    assert twice.json()["errors"][0]["loc"] == ["body", "targets", 1]


async def test_a_local_target_has_a_price_of_its_own(api: httpx.AsyncClient) -> None:
    model = await api.post("models", json={"name": "gemma", "framework": "gguf"})
    model_path = model.headers["Location"].removeprefix("/api/v1/")
    await api.post(f"{model_path}/versions", json={"version": "1.0"})
    target = {"kind": "local", "model_id": model.json()["id"], "version": "1.0"}
    price = {"currency": "EUR", "input": "0.050", "output": "1.", "request": "000.1"}
    refused = await deploy(api, "gemma", {**target, "price": price})
    made = await deploy(api, "gemma", {**target, "price": {**price, "output": "10"}})

    assert refused.status_code == 422
    assert made.json()["targets"][0]["price"] == {
        "currency": "EUR",
        "input": "0.05",
        "output": "10",
        "cached": None,
        "reasoning": None,
        "request": "0.1",
    }
    assert (await api.get(path_of(made))).json() == made.json()


async def test_nobody_pushes_a_name_into_the_lists_of_others(
    other: Other, operator: Person, api: httpx.AsyncClient
) -> None:
    tenant, theirs = other
    made = await deploy(api)
    path = path_of(made)
    any_version = {"If-Match": "*"}
    refused = [
        await api.put(f"{path}/grants/{tenant}"),
        await api.put(path, json={"visibility": "public"}, headers=any_version),
        await deploy(api, "public", visibility="public"),
    ]
    listed = await api.get("deployments", headers=theirs)
    by_operator = await api.put(f"{path}/grants/{tenant}", headers=operator.headers)
    # The name is the other tenant's to see now.
    refused.append(await api.put(path, json={"name": "gpt-4o"}, headers=any_version))
    changed = await api.put(path, json={"max_choices": 1}, headers=any_version)
    revoked = await api.delete(f"{path}/grants/{tenant}")
    renamed = await api.put(path, json={"name": "gpt-4o"}, headers=any_version)

    assert [(each.status_code, each.json()["code"]) for each in refused] == [
        (403, "deployment-of-operator")
    ] * 4
    assert listed.json()["items"] == []
    assert [by_operator.status_code, changed.status_code, revoked.status_code] == [201, 200, 204]
    assert renamed.json()["name"] == "gpt-4o"


@pytest.mark.parametrize("how", ["granted", "public"])
async def test_who_may_call_it_is_not_told_what_answers(
    other: Other, operator: Person, api: httpx.AsyncClient, how: str
) -> None:
    tenant, theirs = other
    made = await deploy(api, description="Ours.", capture_days=3)
    path = path_of(made)
    before = await api.get(path, headers=theirs)
    if how == "granted":
        shared = await api.put(f"{path}/grants/{tenant}", headers=operator.headers)
        again = await api.put(f"{path}/grants/{tenant}", headers=operator.headers)
        assert (shared.status_code, again.status_code) == (201, 200)
    else:
        shared = await api.put(
            path, json={"visibility": "public"}, headers={**operator.headers, **matching(made)}
        )
        assert shared.status_code == 200
    shown, listed = (
        await api.get(path, headers=theirs),
        await api.get("deployments", headers=theirs),
    )
    any_version = {**theirs, "If-Match": "*"}
    acts = [
        await api.put(path, json={"status": "disabled"}, headers=any_version),
        await api.delete(path, headers=any_version),
        await api.get(f"{path}/grants", headers=theirs),
        await api.delete(f"{path}/grants/{tenant}", headers=theirs),
    ]

    told = shown.json()
    assert before.status_code == 404
    assert (told["targets"], told["created_by"]) == (None, None)
    assert (told["name"], told["tenant_id"], told["capture_days"]) == (
        "acme/bot:7b",
        made.json()["tenant_id"],
        3,
    )
    assert listed.json()["items"] == [told]
    assert [act.status_code for act in acts] == [404] * 4


async def test_grants_are_listed_to_the_owner(operator: Person, api: httpx.AsyncClient) -> None:
    path = path_of(await deploy(api))
    own = (await api.get(path)).json()["tenant_id"]
    tenants = [str(new_id()) for _ in range(3)]
    for tenant in tenants:
        await api.put(f"{path}/grants/{tenant}", headers=operator.headers)
    itself = await api.put(f"{path}/grants/{own}", headers=operator.headers)
    listed = await api.get(f"{path}/grants", params={"include_total": True})
    none = await api.delete(f"{path}/grants/{new_id()}")

    assert [each["tenant_id"] for each in listed.json()["items"]] == tenants[::-1]
    assert listed.json()["total"] == 3
    assert (itself.status_code, itself.json()["code"]) == (409, "deployment-grant-to-self")
    assert (none.status_code, none.json()["code"]) == (404, "deployment-grant-not-found")


async def test_a_repeated_creation_is_answered_as_before(api: httpx.AsyncClient) -> None:
    target, headers = leading_to(await add_model(api)), {"Idempotency-Key": "once"}
    first = await deploy(api, "bot", target, headers=headers)
    second = await deploy(api, "bot", target, headers=headers)
    other = await deploy(api, "else", target, headers=headers)

    assert first.json() == second.json()
    assert (second.status_code, second.headers["ETag"]) == (201, first.headers["ETag"])
    assert second.headers["Location"] == first.headers["Location"]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("embeddings", {"input": "hi"}),
    ],
)
async def test_a_deployment_with_nothing_to_call_says_so(
    api: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    """Its provider has no key, and its model takes no embeddings."""
    await deploy(api, "bot")

    refused = await api.post(f"http://maas.test/v1/{path}", json={"model": "bot", **body})

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no-target")


async def test_the_trail_tells_what_led_where_before_and_after(
    operator: Person,
    api: httpx.AsyncClient,
    flush: Flush,
    superuser: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    first, second = await add_model(api, "a"), await add_model(api, "b")
    made = await deploy(api, "bot", leading_to(first, weight=3))
    path, tenant = path_of(made), str(new_id())
    changed = await api.put(path, json={"targets": [leading_to(second)]}, headers=matching(made))
    await api.put(f"{path}/grants/{tenant}", headers=operator.headers)
    await api.delete(f"{path}/grants/{tenant}")
    await api.delete(path, headers=matching(changed))
    await flush()

    told = [(row["action"], json.loads(row["changes"])) for row in await superuser.fetch(EVENTS)]
    actions = [action for action, _ in told]
    assert actions == [
        f"deployment.{act}" for act in ("created", "updated", "granted", "revoked", "deleted")
    ]
    (created, updated, granted, revoked, deleted) = (changes for _, changes in told)
    (was,), (now,) = updated["before"]["targets"], updated["after"]["targets"]
    assert created["after"]["name"] == "bot"
    assert created["after"]["targets"] == updated["before"]["targets"]
    assert (f"provider_model_id={first}" in was, "weight=3" in was) == (True, True)
    assert f"provider_model_id={second}" in now
    assert set(updated["after"]) == {"targets"}
    assert granted["after"] == revoked["before"] == {"granted_to": tenant}
    assert deleted["before"]["targets"] == [now]


@pytest.mark.parametrize(
    ("role", "statuses"), [("developer", (200, 201)), ("user", (403, 403)), ("auditor", (403, 403))]
)
async def test_a_developer_deploys_and_a_user_does_not(
    client: httpx.AsyncClient, make_person: MakePerson, role: str, statuses: tuple[int, int]
) -> None:
    ada, dora = await make_person("ada"), await make_person("dora", roles=(role,))
    client.base_url = httpx.URL("http://maas.test/api/v1/")
    client.headers.update(ada.headers)
    target = leading_to(await add_model(client))
    read = await client.get("deployments", headers=dora.headers)
    made = await deploy(client, "bot", target, headers=dora.headers)

    assert (read.status_code, made.status_code) == statuses
