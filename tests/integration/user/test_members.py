"""What a payer may do now, long after it called: by its roles, its key, and whether both stand."""

from dataclasses import replace
from typing import TypeAlias

import asyncpg
import pytest

from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, ApiKeyId, new_id
from maas.shared.infrastructure.database import Database
from maas.user.infrastructure.members import PostgresMembers
from maas.user.public import Payer
from tests.integration.user.charging import make_tenant

pytestmark = pytest.mark.integration

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

KEY = """
INSERT INTO api_keys (id, tenant_id, account_id, service_account_id, public_id, prefix, name,
    scopes, secret_hash, is_secret_used, expires_at, created_by, created_at, updated_at,
    auth_version, version)
VALUES ($1::uuid, $2, $3, $4, $1::uuid::text, 'sk', 'ci', $5, 'x', true, now() + interval '1 hour',
    $1::uuid, now(), now(), 1, 1)
"""


@pytest.fixture
async def person(superuser: Superuser) -> Payer:
    account_id = AccountId(new_id())
    name = f"u{account_id.hex}"
    await superuser.execute(
        """INSERT INTO accounts (id, username, email, password_hash, status, home_tenant_id,
                                 created_at, updated_at, version)
           VALUES ($1, $2, $2 || '@example.com', 'x', 'active', $3, now(), now(), 1)""",
        *(account_id, name, DEFAULT_TENANT_ID),
    )
    await superuser.execute(
        "INSERT INTO memberships (tenant_id, account_id) VALUES ($1, $2)",
        *(DEFAULT_TENANT_ID, account_id),
    )
    await superuser.execute(
        "INSERT INTO membership_roles VALUES ($1, $2, 'developer')",
        *(DEFAULT_TENANT_ID, account_id),
    )
    return Payer(tenant_id=DEFAULT_TENANT_ID, account_id=account_id, actor_kind="account")


@pytest.fixture
async def service(superuser: Superuser) -> Payer:
    service_id, key_id = AccountId(new_id()), ApiKeyId(new_id())
    await superuser.execute(
        """INSERT INTO service_accounts (id, tenant_id, name, status, created_by, created_at,
                                         updated_at, version)
           VALUES ($1, $2, $3, 'active', $1, now(), now(), 1)""",
        *(service_id, DEFAULT_TENANT_ID, f"s{service_id.hex}"),
    )
    await superuser.execute(
        "INSERT INTO service_account_roles VALUES ($1, $2, 'developer')",
        *(DEFAULT_TENANT_ID, service_id),
    )
    scopes = ["model:write", "user:read"]
    await superuser.execute(KEY, key_id, DEFAULT_TENANT_ID, None, service_id, scopes)
    return Payer(
        tenant_id=DEFAULT_TENANT_ID,
        account_id=service_id,
        actor_kind="service_account",
        api_key_id=key_id,
    )


async def test_a_person_may_what_their_roles_say(person: Payer, database: Database) -> None:
    found = await PostgresMembers(database).find_principal(person)

    assert found is not None
    assert (found.kind, found.account_id, found.tenant_id) == (
        "account",
        person.account_id,
        DEFAULT_TENANT_ID,
    )
    assert found.may("model:write")
    assert found.may("self:read")
    assert not found.may("model:manage")


async def test_a_key_may_what_its_scopes_and_its_holder_may(
    service: Payer, database: Database
) -> None:
    found = await PostgresMembers(database).find_principal(service)

    assert found is not None
    assert found.permissions == {"model:write"}
    assert found.api_key_id == service.api_key_id


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE service_accounts SET status = 'suspended' WHERE id = $1",
        "DELETE FROM service_accounts WHERE id = $1",
        "DELETE FROM api_keys WHERE service_account_id = $1",
        "UPDATE api_keys SET expires_at = now() WHERE service_account_id = $1",
    ],
)
async def test_a_service_without_its_account_or_its_key_may_nothing(
    service: Payer, database: Database, superuser: Superuser, change: str
) -> None:
    await superuser.execute(change, service.account_id)

    assert await PostgresMembers(database).find_principal(service) is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE accounts SET status = 'inactive' WHERE id = $1",
        "UPDATE memberships SET status = 'suspended' WHERE account_id = $1",
    ],
)
async def test_who_may_not_act_may_nothing(
    person: Payer, database: Database, superuser: Superuser, change: str
) -> None:
    await superuser.execute(change, person.account_id)

    assert await PostgresMembers(database).find_principal(person) is None


async def test_neither_in_another_tenant_nor_by_the_key_of_another(
    person: Payer, service: Payer, database: Database, superuser: Superuser
) -> None:
    members, elsewhere = PostgresMembers(database), await make_tenant(superuser)

    assert await members.find_principal(replace(person, tenant_id=elsewhere)) is None
    assert await members.find_principal(replace(person, api_key_id=service.api_key_id)) is None
