"""Ways in which an API key loses what it may do, for the drivers in `tests.revoking`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
from typing_extensions import override

from maas.shared.infrastructure.clock import SystemClock
from maas.user.domain.key_text import read_key
from maas.user.infrastructure.sessions import key_entry
from tests.revoking import Kind, Victim
from tests.stage import MODELS, PASSWORD, ROLES, USERS, Session, Stage

KEYS, SERVICES = "/api/v1/users/api-keys", "/api/v1/admin/service-accounts"
SCOPES = ["self:read", "user:read"]
GRACE_SECONDS = 2
CLOCK_GRAIN_SECONDS = 0.01


class KeySession(Session):
    """A key where others hold a session."""

    @property
    @override
    def key(self) -> str:
        read = read_key(self.access_token)
        assert read is not None
        return key_entry(read.public_id)


@dataclass(slots=True, kw_only=True)
class KeyVictim(Victim):
    """Somebody with two keys; `at` is where the first can be changed, by whoever has `headers`."""

    at: str
    headers: dict[str, str]


async def _issue(
    stage: Stage, at: str, headers: dict[str, str], scopes: Sequence[str]
) -> tuple[str, KeySession]:
    body = {"name": "victim", "scopes": list(scopes)}
    made = await stage.post(at, body, headers=headers)
    return f"{at}/{made['id']}", KeySession(access_token=made["key"], refresh_token="")


async def _person_with_keys(stage: Stage, kind: Kind) -> Victim:
    """Make a person with two keys, the first for what will be taken away."""
    role = kind.role
    if role is None:
        role = f"keyed{next(stage.numbers)}"
        await stage.post(ROLES, {"name": role, "permissions": ["user:read"]})
    name, person_id = await stage.make_person(role)
    session = await stage.sign_in(name, PASSWORD)
    at, first = await _issue(stage, KEYS, session.headers, SCOPES)
    _, second = await _issue(stage, KEYS, session.headers, SCOPES)
    return KeyVictim(
        name=name,
        id=person_id,
        role=role,
        first=first,
        second=second,
        at=at,
        headers=session.headers,
    )


async def _service_with_keys(stage: Stage, kind: Kind) -> Victim:
    assert kind.role is not None
    name = f"service{next(stage.numbers)}"
    made = await stage.post(SERVICES, {"name": name, "roles": [kind.role]})
    under = f"{SERVICES}/{made['id']}/api-keys"
    at, first = await _issue(stage, under, stage.admin, ["model:read"])
    _, second = await _issue(stage, under, stage.admin, ["model:read"])
    return KeyVictim(
        name=name,
        id=made["id"],
        role=kind.role,
        first=first,
        second=second,
        at=at,
        headers=stage.admin,
    )


def _of(victim: Victim) -> KeyVictim:
    assert isinstance(victim, KeyVictim)
    return victim


async def _revoke(_: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    keyed = _of(victim)
    return await client.delete(keyed.at, headers=keyed.headers)


async def _rotate(_: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    keyed = _of(victim)
    return await client.post(f"{keyed.at}/rotate", json={"grace_seconds": 0}, headers=keyed.headers)


async def _outlive_grace(_: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    """Rotate with a short grace, and count from its end on, which the answer tells."""
    keyed = _of(victim)
    answer = await client.post(
        f"{keyed.at}/rotate", json={"grace_seconds": GRACE_SECONDS}, headers=keyed.headers
    )
    if answer.is_success:
        until = datetime.fromisoformat(answer.json()["previous_valid_until"])
        left = (until - SystemClock().now()).total_seconds()
        await asyncio.sleep(max(left, 0) + CLOCK_GRAIN_SECONDS)
    return answer


async def _cut_scope(_: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    keyed = _of(victim)
    return await client.put(keyed.at, json={"scopes": ["self:read"]}, headers=keyed.headers)


async def _suspend_person(
    stage: Stage, client: httpx.AsyncClient, victim: Victim
) -> httpx.Response:
    return await client.put(
        f"{USERS}/{victim.id}/suspension", json={"reason": "Asked for."}, headers=stage.admin
    )


async def _remove_person(stage: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    return await client.delete(f"{USERS}/{victim.id}", headers=stage.admin)


async def _leave(_: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    return await client.post(
        "/api/v1/users/deactivation",
        json={"current_password": PASSWORD},
        headers=_of(victim).headers,
    )


async def _take_role(stage: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    return await client.put(
        f"{USERS}/{victim.id}/roles",
        json={"roles": ["user"]},
        headers={**stage.admin, "If-Match": "*"},
    )


async def _narrow_role(stage: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    return await client.put(
        f"{ROLES}/{victim.role}",
        json={"permissions": ["model:read"]},
        headers={**stage.admin, "If-Match": "*"},
    )


async def _suspend_service(
    stage: Stage, client: httpx.AsyncClient, victim: Victim
) -> httpx.Response:
    return await client.put(
        f"{SERVICES}/{victim.id}", json={"status": "suspended"}, headers=stage.admin
    )


async def _delete_service(
    stage: Stage, client: httpx.AsyncClient, victim: Victim
) -> httpx.Response:
    return await client.delete(f"{SERVICES}/{victim.id}", headers=stage.admin)


def _person(name: str, act: Any, **fields: Any) -> Kind:
    return Kind(name=name, act=act, **{"role": "auditor", "make": _person_with_keys, **fields})


def _service(name: str, act: Any, **fields: Any) -> Kind:
    return Kind(
        name=name,
        act=act,
        **{"role": "user", "make": _service_with_keys, "path": MODELS, **fields},
    )


KEY_KINDS = (
    _person("key revoked", _revoke, second_stays=True),
    _person("key rotated", _rotate, done=200, second_stays=True),
    _person("key out of grace", _outlive_grace, done=200, second_stays=True),
    _person("key's scope cut", _cut_scope, done=200, path=USERS, refused=403, second_stays=True),
    _person("holder suspended", _suspend_person, done=200),
    _person("holder removed", _remove_person),
    _person("holder deactivated", _leave),
    _person("holder's role taken", _take_role, done=200, path=USERS, refused=403),
    _person("holder's role narrowed", _narrow_role, done=200, role=None, path=USERS, refused=403),
    _service("service account suspended", _suspend_service, done=200),
    _service("service account deleted", _delete_service),
)
