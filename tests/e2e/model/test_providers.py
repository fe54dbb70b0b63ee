"""A supplier over HTTP: connected, given a key that nobody sees again, moved, granted, let go."""

import asyncpg
import httpx
import pytest

from maas.shared.infrastructure.settings import Settings
from tests.conftest import MakeSettings
from tests.e2e.conftest import Flush, MakePerson, Person

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

KEY = "sk-canary-0123456789abcdef"
LISTED = "10.1.2.3:8000"
PRIVATE = f"http://{LISTED}/v1"

EVERY_ROW = """
    SELECT string_agg(row, '') FROM (
        SELECT l::text AS row FROM audit_log l UNION ALL SELECT o::text FROM audit_outbox o
        UNION ALL SELECT convert_from(payload, 'UTF8') FROM audit_log
        UNION ALL SELECT c::text FROM provider_credentials c
        UNION ALL SELECT p::text FROM providers p
        UNION ALL SELECT i::text FROM idempotency_keys i
    ) everything
"""


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(outgoing={"allowed_private_targets": (LISTED,)})


async def make(api: httpx.AsyncClient, **body: str | None) -> httpx.Response:
    return await api.post("providers", json={"name": "OpenAI", "type": "openai", **body})


def path_of(answer: httpx.Response) -> str:
    return answer.headers["Location"].removeprefix("/api/v1/")


def matching(answer: httpx.Response) -> dict[str, str]:
    return {"If-Match": answer.headers["ETag"]}


async def test_a_key_is_set_and_never_seen_again(
    api: httpx.AsyncClient,
    flush: Flush,
    superuser: "asyncpg.Connection[asyncpg.Record]",
    capfd: pytest.CaptureFixture[str],
) -> None:
    made = await make(api)
    path = path_of(made)
    credential, body = f"{path}/credential", {"api_key": KEY}
    blind = await api.put(credential, json=body)
    answers = [
        await api.put(credential, json=body, headers=matching(made)),
        await api.put(credential, json={"api_key": f"{KEY}\n"}, headers={"If-Match": "*"}),
        await api.put(credential, json={"api_key": [KEY]}, headers={"If-Match": "*"}),
        await api.put(credential, json={"api_key": KEY, "x": KEY}, headers={"If-Match": "*"}),
        # With it in the wrong place, nor is it told which field there is not.
        await api.put(credential, json={KEY: "x"}, headers={"If-Match": "*"}),
        await api.put(credential, json=body, headers=matching(made)),
        await api.get(path),
        await api.get("providers"),
    ]
    await flush()

    assert made.status_code == 201
    assert made.json()["credential_set_at"] is None
    assert blind.json()["code"] == "precondition-required"
    assert [answer.status_code for answer in answers] == [200, *[422] * 4, 412, 200, 200]
    assert answers[1].json()["code"] == "invalid-supplier-key"
    assert answers[4].json()["errors"][0]["loc"] == ["body"]
    assert answers[6].json()["credential_set_at"] == answers[0].json()["credential_set_at"]
    kept = await superuser.fetchval(EVERY_ROW)
    logged = "".join(capfd.readouterr())
    assert "credential_set" in kept
    assert "/credential" in logged
    for text in (kept, logged, *(answer.text for answer in (blind, *answers))):
        # Neither as it is, nor by its ends, nor in the hexadecimal form of bytes.
        assert KEY not in text
        assert KEY[-8:] not in text
        assert KEY.encode().hex() not in text


async def test_a_key_does_not_go_with_another_address(api: httpx.AsyncClient) -> None:
    made = await make(api)
    path = path_of(made)
    keyed = await api.put(f"{path}/credential", json={"api_key": KEY}, headers=matching(made))
    same = await api.put(
        path, json={"base_url": "https://API.openai.com:443/v1/"}, headers=matching(keyed)
    )
    moved = await api.put(
        path, json={"base_url": "https://api.openai.com/echo/v1"}, headers=matching(same)
    )
    blind = await api.put(path, json={"status": "disabled"})
    none = await api.delete(f"{path}/credential")

    assert same.json()["credential_set_at"] == keyed.json()["credential_set_at"] is not None
    assert (moved.status_code, moved.json()["credential_set_at"]) == (200, None)
    assert (blind.status_code, none.json()["code"]) == (428, "credential-not-set")


async def test_what_a_type_needs_is_asked_for(api: httpx.AsyncClient) -> None:
    types = {each["type"]: each for each in (await api.get("provider-types")).json()["items"]}
    refused = [
        await make(api, type="vllm"),
        await make(api, api_version="preview"),
        await make(api, type="unheard-of"),
        await make(api, base_url="http://api.openai.com/v1"),
    ]
    azure = await make(
        api, type="azure", base_url=types["azure"]["base_url_example"], api_version="preview"
    )

    assert len(types) == 12
    assert [answer.json()["code"] for answer in refused] == [
        "base-url-missing",
        "api-version-not-used",
        "validation-failed",
        "target-refused",
    ]
    assert (azure.status_code, azure.json()["api_version"]) == (201, "preview")


async def test_another_type_has_another_address(api: httpx.AsyncClient) -> None:
    made = await make(api)
    path = path_of(made)
    turned = await api.put(path, json={"type": "anthropic"}, headers=matching(made))
    same = await api.put(
        path, json={"type": "anthropic", "name": "Claude"}, headers=matching(turned)
    )
    nowhere = await api.put(path, json={"type": "vllm"}, headers=matching(same))
    own = await api.put(
        path, json={"type": "vllm", "base_url": "https://gpu.example.com"}, headers=matching(same)
    )

    assert (turned.status_code, turned.json()["base_url"]) == (200, "https://api.anthropic.com")
    assert same.json()["base_url"] == "https://api.anthropic.com"
    assert (nowhere.status_code, nowhere.json()["code"]) == (422, "base-url-missing")
    assert own.json()["base_url"] == "https://gpu.example.com"


async def test_only_the_operator_connects_what_lies_inside(
    operator: Person, api: httpx.AsyncClient
) -> None:
    listed = await make(api, base_url=PRIVATE)
    unlisted = await make(api, base_url=PRIVATE.replace("8000", "8001"))
    public = await make(api, name="public")
    turned = await api.put(path_of(public), json={"base_url": PRIVATE}, headers={"If-Match": "*"})
    as_operator = {**operator.headers, "If-Match": "*"}
    made = await api.post(
        "providers",
        json={"name": "vLLM", "type": "vllm", "base_url": PRIVATE},
        headers=operator.headers,
    )
    path = path_of(made)
    refused = [
        await api.put(path, json={"name": "Mine"}, headers={"If-Match": "*"}),
        await api.put(f"{path}/credential", json={"api_key": KEY}, headers={"If-Match": "*"}),
        await api.delete(path, headers={"If-Match": "*"}),
    ]
    renamed = await api.put(path, json={"name": "Mine"}, headers=as_operator)

    # What is on the list and what is not are answered in the same words.
    assert [each.json()["code"] for each in (listed, unlisted, turned)] == ["target-refused"] * 3
    assert len({each.json()["detail"] for each in (listed, unlisted, turned)}) == 1
    assert (made.status_code, made.json()["reach"]) == (201, "private")
    assert [each.json()["code"] for each in refused] == ["provider-of-operator"] * 3
    assert renamed.json()["name"] == "Mine"
    assert (await api.get(path)).json()["reach"] == "private"


async def test_nobody_pushes_a_supplier_into_the_list_of_another_tenant(
    other: tuple[str, dict[str, str]], operator: Person, api: httpx.AsyncClient
) -> None:
    tenant, theirs = other
    path = path_of(await make(api))
    pushed = await api.put(f"{path}/grants/{tenant}")
    listed = await api.get("providers", headers=theirs)
    by_operator = await api.put(f"{path}/grants/{tenant}", headers=operator.headers)
    revoked = await api.delete(f"{path}/grants/{tenant}")

    assert (pushed.status_code, pushed.json()["code"]) == (403, "provider-grants-of-operator")
    assert listed.json()["items"] == []
    assert (by_operator.status_code, revoked.status_code) == (201, 204)


async def test_a_granted_supplier_is_seen_without_its_address(
    other: tuple[str, dict[str, str]], operator: Person, api: httpx.AsyncClient
) -> None:
    tenant, theirs = other
    made = await make(api, description="Ours.")
    path = path_of(made)
    await api.put(f"{path}/credential", json={"api_key": KEY}, headers=matching(made))
    before = await api.get(path, headers=theirs)
    granted = await api.put(f"{path}/grants/{tenant}", headers=operator.headers)
    again = await api.put(f"{path}/grants/{tenant}", headers=operator.headers)
    shown = await api.get(path, headers=theirs)
    listed = await api.get("providers", headers=theirs)
    acts = [
        await api.put(path, json={"name": "x"}, headers={**theirs, "If-Match": "*"}),
        await api.delete(path, headers={**theirs, "If-Match": "*"}),
        await api.put(
            f"{path}/credential", json={"api_key": KEY}, headers={**theirs, "If-Match": "*"}
        ),
        await api.get(f"{path}/grants", headers=theirs),
    ]
    revoked = await api.delete(f"{path}/grants/{tenant}")
    after = await api.get(path, headers=theirs)

    told = shown.json()
    hidden = {
        "base_url", "api_version", "description", "reach", "credential_set_at", "created_by"
    }  # fmt: skip
    assert (before.status_code, granted.status_code, again.status_code) == (404, 201, 200)
    assert {name for name, value in told.items() if value is None} == hidden
    assert (told["name"], told["type"], told["tenant_id"]) == (
        "OpenAI",
        "openai",
        made.json()["tenant_id"],
    )
    assert listed.json()["items"] == [told]
    assert [act.status_code for act in acts] == [404] * 4
    assert (revoked.status_code, after.status_code) == (204, 404)


async def test_it_is_gone_with_its_key_and_its_name_is_free(
    api: httpx.AsyncClient, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    made = await make(api)
    path = path_of(made)
    keyed = await api.put(f"{path}/credential", json={"api_key": KEY}, headers=matching(made))
    taken = await make(api)
    gone = await api.delete(path, headers=matching(keyed))

    assert taken.json()["code"] == "provider-name-taken"
    assert (gone.status_code, (await api.get(path)).status_code) == (204, 404)
    assert await superuser.fetchval("SELECT count(*) FROM provider_credentials") == 0
    assert (await make(api)).status_code == 201
    # The row stays for what it was used for.
    assert await superuser.fetchval("SELECT count(*) FROM providers") == 2


async def test_a_repeated_creation_is_answered_as_before(api: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "once"}
    body = {"name": "OpenAI", "type": "openai"}
    first = await api.post("providers", json=body, headers=headers)
    second = await api.post("providers", json=body, headers=headers)

    assert first.json() == second.json()
    assert (second.status_code, second.headers["ETag"]) == (201, first.headers["ETag"])


@pytest.mark.parametrize(("role", "status"), [("developer", 200), ("user", 403)])
async def test_a_developer_reads_and_a_user_does_not(
    client: httpx.AsyncClient, make_person: MakePerson, role: str, status: int
) -> None:
    headers = (await make_person("dora", roles=(role,))).headers
    read = await client.get("/api/v1/providers", headers=headers)
    made = await client.post(
        "/api/v1/providers", json={"name": "x", "type": "openai"}, headers=headers
    )
    assert (read.status_code, made.status_code) == (status, 403)
