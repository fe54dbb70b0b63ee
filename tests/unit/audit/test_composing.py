import json
from datetime import UTC, datetime

from maas.audit.application.events import EventComposer
from maas.audit.public import Actor, AuditScope
from maas.shared.domain.ids import (
    DEFAULT_TENANT_ID,
    AccountId,
    ApiKeyId,
    TenantId,
    new_id,
)
from maas.shared.domain.principal import Principal
from tests.fakes.clock import FakeClock
from tests.fakes.recorder import make_call

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
COMPOSER = EventComposer(FakeClock(NOW))


def make_principal() -> Principal:
    return Principal(
        kind="service_account",
        account_id=AccountId(new_id()),
        tenant_id=TenantId(new_id()),
        username="robot",
        permissions=frozenset(),
        version=1,
        api_key_id=ApiKeyId(new_id()),
    )


def test_takes_who_and_where_from_the_call() -> None:
    call, principal = make_call(), make_principal()
    call.act_as(principal)
    call.address, call.user_agent = "192.0.2.7", "curl"

    event = COMPOSER.compose(AuditScope("model.created"), call)

    hashed = json.loads(event.payload)
    assert hashed["actor"] == {"kind": "service_account", "id": str(principal.account_id)}
    assert hashed["tenant_id"] == str(principal.tenant_id) == str(event.tenant_id)
    assert hashed["api_key_id"] == str(principal.api_key_id)
    assert hashed["occurred_at"] == "2026-11-21T08:00:00.000000Z"
    assert event.personal.values == {
        "actor_name": "robot",
        "address": "192.0.2.7",
        "user_agent": "curl",
    }
    assert set(hashed["commitments"]) == set(event.personal.values)


def test_lets_the_scope_name_another_actor_and_tenant() -> None:
    scope = AuditScope("auth.login", "failure", "invalid-credentials")
    scope.actor = Actor("account", new_id(), "mei-lin")
    scope.tenant_id = TenantId(new_id())
    scope.email = "mei-lin@example.com"

    event = COMPOSER.compose(scope, make_call())

    hashed = json.loads(event.payload)
    assert hashed["actor"]["id"] == str(scope.actor.id)
    assert hashed["tenant_id"] == str(scope.tenant_id)
    assert (hashed["outcome"], hashed["reason"]) == ("failure", "invalid-credentials")
    assert b"mei-lin" not in event.payload


def test_puts_what_belongs_to_nobody_into_the_default_tenant() -> None:
    event = COMPOSER.compose(AuditScope("auth.login", "failure"), make_call())

    assert event.tenant_id == DEFAULT_TENANT_ID
    assert json.loads(event.payload)["actor"] == {"kind": "anonymous", "id": None}


def test_salts_every_event_anew() -> None:
    scope, call = AuditScope("auth.login"), make_call()

    salts = {COMPOSER.compose(scope, call).personal.salt for _ in range(10)}

    assert len(salts) == 10
