"""One row a route: how to make what it acts on, and what the trail will say of it."""

import base64
import json
from typing import Any

from maas.shared.domain.ids import new_id
from tests.e2e.conftest import Person
from tests.e2e.routes.capture_cases import CAPTURE_ROWS
from tests.e2e.routes.deployment_cases import DEPLOYMENT_ROWS
from tests.e2e.routes.making import Make, plain
from tests.e2e.routes.model_cases import MODEL_ROWS
from tests.e2e.routes.provider_cases import PROVIDER_ROWS
from tests.e2e.routes.receipt_cases import RECEIPT_ROWS
from tests.e2e.routes.world import ANSWERED, API, SOME, TENANT, Case, World
from tests.factories.accounts import PASSWORD

NEW_PASSWORD = "another long enough phrase"
ANY = {"If-Match": "*"}


def session_of(person: Person) -> str:
    payload = person.access_token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=="))["sid"])


async def register(world: World) -> Case:
    name = world.name()
    body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    return Case(caller=None, json=body, resource=("account", SOME))


async def login(world: World) -> Case:
    name = await world.user()
    body = {"username": name, "password": PASSWORD}
    return Case(caller=None, json=body, actor=world.ids[name], resource=("session", SOME))


async def token(world: World) -> Case:
    name = await world.user()
    form = {"username": name, "password": PASSWORD, "grant_type": "password"}
    return Case(caller=None, form=form, actor=world.ids[name], resource=("session", SOME))


async def refresh(world: World) -> Case:
    person = await world.person()
    return Case(
        caller=None,
        json={"refresh_token": person.refresh_token},
        actor=world.ids[person.username],
        resource=("session", session_of(person)),
    )


async def switch_tenant(world: World) -> Case:
    person = await world.person()
    tenant = await world.made("/admin/tenants", {"slug": world.name(), "name": "T"})
    path = f"{API}/admin/tenants/{tenant['id']}/members/{world.ids[person.username]}"
    put = await world.client.put(path, json={"roles": ["user"]}, headers=world.root.headers)
    assert put.status_code == 200, put.text
    return Case(
        caller=person,
        json={"tenant": tenant["slug"]},
        tenant=tenant["id"],
        resource=("session", SOME),
    )


async def logout(world: World) -> Case:
    person = await world.person()
    return Case(caller=person, resource=("session", session_of(person)))


async def logout_all(world: World) -> Case:
    person = await world.person()
    return Case(caller=person, resource=("account", world.ids[person.username]))


async def end_session(world: World) -> Case:
    person = await world.person()
    session = session_of(person)
    return Case(
        caller=person,
        values={"id": session},
        missing={"id": str(new_id())},
        resource=("session", session),
    )


async def verify_email(world: World) -> Case:
    case = await register(world)
    answer = await world.client.post(f"{API}/auth/register", json=case.json)
    assert answer.status_code == 202, answer.text
    link = await world.mailed_link(case.json["email"])
    account = await world.connection.fetchval(
        "SELECT id::text FROM accounts WHERE email = $1", case.json["email"]
    )
    return Case(caller=None, json={"token": link}, actor=account, resource=("account", account))


async def forgot(world: World) -> Case:
    name = await world.user()
    return Case(caller=None, json={"email": f"{name}@example.com"})


async def reset(world: World) -> Case:
    case = await forgot(world)
    await world.client.post(f"{API}/auth/password/forgot", json=case.json)
    link = await world.mailed_link(case.json["email"])
    account = world.ids[case.json["email"].partition("@")[0]]
    return Case(
        caller=None,
        json={"token": link, "new_password": NEW_PASSWORD},
        actor=account,
        resource=("account", account),
    )


async def update_profile(world: World) -> Case:
    person = await world.person()
    return Case(
        caller=person,
        json={"display_name": "Ada"},
        headers=ANY,
        resource=("account", world.ids[person.username]),
    )


async def change_password(world: World) -> Case:
    person = await world.person()
    return Case(
        caller=person,
        json={"current_password": PASSWORD, "new_password": NEW_PASSWORD},
        resource=("account", world.ids[person.username]),
    )


async def leave(world: World) -> Case:
    person = await world.person()
    return Case(
        caller=person,
        json={"current_password": PASSWORD},
        resource=("account", world.ids[person.username]),
    )


async def create_user(world: World) -> Case:
    name = world.name()
    body = {"username": name, "email": f"{name}@example.com", "roles": ["user"]}
    return Case(caller=world.root, json=body, resource=("account", ANSWERED))


async def bulk(world: World) -> Case:
    account = world.ids[await world.user()]
    row = {"act": "suspend", "id": account, "reason": "On leave."}
    return Case(
        caller=world.root,
        json={"mode": "all-or-nothing", "rows": [row]},
        resource=("account", account),
    )


def on_user(body: object = None, *, headers: dict[str, str] | None = None) -> Make:
    async def make(world: World) -> Case:
        account = world.ids[await world.user()]
        return Case(
            caller=world.root,
            values={"user_id": account},
            missing={"user_id": str(new_id())},
            json=body,
            headers=headers or {},
            resource=("account", account),
        )

    return make


async def invite(world: World) -> Case:
    body = {"email": f"{world.name()}@example.com", "roles": ["user"], "send_mail": False}
    return Case(caller=world.root, json=body, resource=("invitation", ANSWERED))


async def withdraw(world: World) -> Case:
    case = await invite(world)
    made = await world.made("/admin/invitations", case.json)
    return Case(
        caller=world.root,
        values={"invitation_id": made["id"]},
        missing={"invitation_id": str(new_id())},
        resource=("invitation", made["id"]),
    )


async def create_role(world: World) -> Case:
    name = world.name()
    body = {"name": name, "permissions": ["user:read"]}
    return Case(caller=world.root, json=body, resource=("role", name))


def on_role(body: object = None) -> Make:
    async def make(world: World) -> Case:
        case = await create_role(world)
        await world.made("/admin/roles", case.json)
        return Case(
            caller=world.root,
            values={"name": case.json["name"]},
            missing={"name": "no-such-role"},
            json=body,
            headers=ANY,
            resource=case.resource,
        )

    return make


async def create_tenant(world: World) -> Case:
    body = {"slug": world.name(), "name": "T"}
    return Case(caller=world.root, json=body, resource=("tenant", ANSWERED))


def on_tenant(body: object = None) -> Make:
    async def make(world: World) -> Case:
        case = await create_tenant(world)
        made = await world.made("/admin/tenants", case.json)
        return Case(
            caller=world.root,
            values={"tenant_id": made["id"]},
            missing={"tenant_id": str(new_id())},
            json=body,
            headers=ANY,
            resource=("tenant", made["id"]),
        )

    return make


async def put_member(world: World) -> Case:
    case = await on_tenant()(world)
    account = world.ids[await world.user()]
    return Case(
        caller=world.root,
        values={**case.values, "user_id": account},
        missing={"tenant_id": str(new_id()), "user_id": account},
        json={"roles": ["user"]},
        tenant=case.values["tenant_id"],
        resource=("account", account),
    )


async def remove_member(world: World) -> Case:
    case = await put_member(world)
    path = f"{API}/admin/tenants/{case.tenant}/members/{case.values['user_id']}"
    put = await world.client.put(path, json=case.json, headers=world.root.headers)
    assert put.status_code == 200, put.text
    return Case(
        caller=world.root,
        values=case.values,
        missing=case.missing,
        tenant=case.tenant,
        resource=case.resource,
    )


KEY: dict[str, Any] = {"name": "nightly", "scopes": ["model:read"]}


async def create_key(world: World) -> Case:
    # Somebody new each time, for nobody holds more than a hundred.
    return Case(caller=await world.person(), json=KEY, resource=("api_key", ANSWERED))


def on_key(body: object = None) -> Make:
    async def make(world: World) -> Case:
        person = await world.person()
        key = (await world.made("/users/api-keys", KEY, by=person))["id"]
        return Case(
            caller=person,
            values={"key_id": key},
            missing={"key_id": str(new_id())},
            json=body,
            resource=("api_key", key),
        )

    return make


async def create_service(world: World) -> Case:
    body = {"name": world.name(), "roles": ["developer"]}
    return Case(caller=world.root, json=body, resource=("service_account", ANSWERED))


def on_service(body: object = None, *, makes: str = "service_account") -> Make:
    async def make(world: World) -> Case:
        case = await create_service(world)
        service = (await world.made("/admin/service-accounts", case.json))["id"]
        return Case(
            caller=world.root,
            values={"service_account_id": service},
            missing={"service_account_id": str(new_id())},
            json=body,
            resource=(makes, service if makes == "service_account" else ANSWERED),
        )

    return make


def on_service_key(body: object = None) -> Make:
    async def make(world: World) -> Case:
        case = await on_service()(world)
        service = case.values["service_account_id"]
        key = (await world.made(f"/admin/service-accounts/{service}/api-keys", KEY))["id"]
        case.values = {"service_account_id": service, "key_id": key}
        case.missing = {"service_account_id": service, "key_id": str(new_id())}
        case.json, case.resource = body, ("api_key", key)
        return case

    return make


QUOTAS: dict[str, Any] = {"quotas": [{"meter": "tokens", "period": "month", "limit": 1000}]}


def quota_of(make: Make, body: object = None) -> Make:
    """The quotas of what another row makes; what is set of a tenant stands in its own trail."""

    async def of(world: World) -> Case:
        case = await make(world)
        case.json, case.headers = body, ANY
        if "tenant_id" in case.values and body is not None:
            case.tenant = case.values["tenant_id"]
        return case

    return of


async def one_event(world: World) -> Case:
    await world.flushing.service.run()
    event = await world.connection.fetchval(
        "SELECT event_id::text FROM audit_log WHERE tenant_id::text = $1 LIMIT 1", TENANT
    )
    return Case(caller=world.root, values={"id": event}, missing={"id": str(new_id())})


async def signed(world: World) -> Case:
    await world.flushing.service.run()
    return Case(caller=world.root)


async def create_webhook(world: World) -> Case:
    # There may be twenty at a time, and the walk makes more.
    await world.connection.execute("DELETE FROM audit_webhooks")
    # A name that leads nowhere public, and that is resolved without asking anybody.
    body = {"name": world.name(), "url": "https://localhost/hook", "rules": ["new-admin"]}
    return Case(caller=world.root, json=body, resource=("webhook", ANSWERED))


def on_webhook(body: object = None) -> Make:
    async def make(world: World) -> Case:
        case = await create_webhook(world)
        made = await world.made("/audit/webhooks", case.json)
        return Case(
            caller=world.root,
            values={"webhook_id": made["id"]},
            missing={"webhook_id": str(new_id())},
            json=body,
            resource=("webhook", made["id"]),
        )

    return make


def on_rule(body: object = None) -> Make:
    return plain(
        values={"name": "mass-deletion"},
        missing={"name": "no-such-rule"},
        json=body,
        resource=("audit_rule", "mass-deletion"),
        is_everywhere=True,
    )


ROWS: dict[str, Make] = {
    "POST /auth/register": register,
    "POST /auth/login": login,
    "POST /auth/token": token,
    "POST /auth/refresh": refresh,
    "POST /auth/switch-tenant": switch_tenant,
    "POST /auth/logout": logout,
    "POST /auth/logout-all": logout_all,
    "GET /auth/sessions": plain(),
    "DELETE /auth/sessions/{id}": end_session,
    "POST /auth/password/forgot": forgot,
    "POST /auth/password/reset": reset,
    "POST /auth/email/verify": verify_email,
    "GET /users/profile": plain(),
    "PUT /users/profile": update_profile,
    "POST /users/password": change_password,
    "POST /users/deactivation": leave,
    "POST /users/deletion": leave,
    "GET /users/quota": plain(),
    "GET /users/tenants": plain(),
    "GET /users/api-keys": plain(),
    "POST /users/api-keys": create_key,
    "GET /users/api-keys/{key_id}": on_key(),
    "PUT /users/api-keys/{key_id}": on_key({"name": "weekly"}),
    "DELETE /users/api-keys/{key_id}": on_key(),
    "POST /users/api-keys/{key_id}/rotate": on_key({"grace_seconds": 60}),
    "GET /users/api-keys/{key_id}/quota": on_key(),
    "PUT /users/api-keys/{key_id}/quota": quota_of(on_key(), QUOTAS),
    "GET /users/usage": plain(),
    "GET /usage": plain(),
    "GET /admin/users": plain(),
    "POST /admin/users": create_user,
    "POST /admin/users/bulk": bulk,
    "GET /admin/users/export": plain(),
    "GET /admin/users/{user_id}": on_user(),
    "PUT /admin/users/{user_id}": on_user({"display_name": "Ada"}),
    "DELETE /admin/users/{user_id}": on_user(),
    "PUT /admin/users/{user_id}/suspension": on_user({"reason": "On leave."}),
    "DELETE /admin/users/{user_id}/suspension": on_user(),
    "DELETE /admin/users/{user_id}/deactivation": on_user(),
    "PUT /admin/users/{user_id}/roles": on_user({"roles": ["developer"]}, headers=ANY),
    "POST /admin/users/{user_id}/password-reset": on_user({}),
    "POST /admin/invitations": invite,
    "DELETE /admin/invitations/{invitation_id}": withdraw,
    "GET /admin/roles": plain(),
    "POST /admin/roles": create_role,
    "GET /admin/roles/{name}": on_role(),
    "PUT /admin/roles/{name}": on_role({"permissions": []}),
    "DELETE /admin/roles/{name}": on_role(),
    "GET /admin/permissions": plain(),
    "GET /admin/service-accounts": plain(),
    "POST /admin/service-accounts": create_service,
    "GET /admin/service-accounts/{service_account_id}": on_service(),
    "PUT /admin/service-accounts/{service_account_id}": on_service({"description": "Mine"}),
    "DELETE /admin/service-accounts/{service_account_id}": on_service(),
    "GET /admin/service-accounts/{service_account_id}/api-keys": on_service(),
    "POST /admin/service-accounts/{service_account_id}/api-keys": on_service(KEY, makes="api_key"),
    "GET /admin/service-accounts/{service_account_id}/api-keys/{key_id}": on_service_key(),
    "PUT /admin/service-accounts/{service_account_id}/api-keys/{key_id}": on_service_key(
        {"name": "weekly"}
    ),
    "DELETE /admin/service-accounts/{service_account_id}/api-keys/{key_id}": on_service_key(),
    "POST /admin/service-accounts/{service_account_id}/api-keys/{key_id}/rotate": on_service_key(
        {"grace_seconds": 60}
    ),
    "GET /admin/quota": plain(),
    "GET /admin/users/{user_id}/quota": on_user(),
    "PUT /admin/users/{user_id}/quota": on_user(QUOTAS, headers=ANY),
    "GET /admin/service-accounts/{service_account_id}/quota": on_service(),
    "PUT /admin/service-accounts/{service_account_id}/quota": quota_of(on_service(), QUOTAS),
    "GET /admin/service-accounts/{service_account_id}/api-keys/{key_id}/quota": on_service_key(),
    "PUT /admin/service-accounts/{service_account_id}/api-keys/{key_id}/quota": quota_of(
        on_service_key(), QUOTAS
    ),
    "GET /admin/tenants/{tenant_id}/quota": on_tenant(),
    "PUT /admin/tenants/{tenant_id}/quota": quota_of(on_tenant(), QUOTAS),
    "GET /admin/tenants": plain(),
    "POST /admin/tenants": create_tenant,
    "GET /admin/tenants/{tenant_id}": on_tenant(),
    "PUT /admin/tenants/{tenant_id}": on_tenant({"name": "U"}),
    "DELETE /admin/tenants/{tenant_id}": on_tenant(),
    "GET /admin/tenants/{tenant_id}/members": on_tenant(),
    "PUT /admin/tenants/{tenant_id}/members/{user_id}": put_member,
    "DELETE /admin/tenants/{tenant_id}/members/{user_id}": remove_member,
    **CAPTURE_ROWS,
    **DEPLOYMENT_ROWS,
    **MODEL_ROWS,
    **PROVIDER_ROWS,
    **RECEIPT_ROWS,
    "GET /audit/logs": plain(),
    "GET /audit/logs/{id}": one_event,
    "GET /audit/logs/{id}/neighbours": one_event,
    "GET /audit/logs/{id}/proof": one_event,
    "GET /audit/logs/export": plain(resource=("audit_log", TENANT)),
    "GET /audit/stats": plain(),
    "GET /audit/rules": plain(),
    "GET /audit/rules/{name}": on_rule(),
    "PUT /audit/rules/{name}": on_rule({"parameters": {"deletions": 30}}),
    "GET /audit/alerts": plain(),
    "GET /audit/webhooks": plain(),
    "POST /audit/webhooks": create_webhook,
    "GET /audit/webhooks/{webhook_id}": on_webhook(),
    "PUT /audit/webhooks/{webhook_id}": on_webhook({"status": "disabled"}),
    "DELETE /audit/webhooks/{webhook_id}": on_webhook(),
    "POST /audit/webhooks/{webhook_id}/rotate": on_webhook(),
    "POST /audit/webhooks/{webhook_id}/test": on_webhook(),
    "GET /audit/webhooks/{webhook_id}/deliveries": on_webhook(),
    "GET /audit/head": signed,
    "GET /audit/checkpoints": plain(),
}
"""Under `/api/v1`, in the order of the design's table; a route without a row fails the walk."""
