"""Who calls on what budgets: made of a seed, so that whoever has the seed knows all of it."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final
from uuid import UUID

import asyncpg

from maas.shared.domain.ids import AccountId, ApiKeyId, TenantId
from maas.user.public import Amounts, Meter, Payer, Scope

SCOPES: Final[Sequence[Scope]] = ("tenant", "user", "key")
METERS: Final[Sequence[Meter]] = ("requests", "tokens", "cost")
CURRENCY: Final = "EUR"
NANOS_A_TOKEN: Final = 3_000
MOST_TOKENS: Final = 1_000
USERS, KEYS = 2, 2

HOLDS: Final = 1_000
"""The largest hold is so small a share of a limit that binds, and smaller of wider scopes."""

WIDTHS: Final[dict[Scope, float]] = {"key": 1.0, "user": 1.7, "tenant": 3.0}
"""Two keys may use more than their account may, and two accounts more than the tenant."""

SLACK: Final = 4
"""How many times wider the limits on meters are that do not bind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    tenant_id: TenantId
    scope: Scope
    subject_id: UUID
    meter: Meter
    amount: int
    is_monthly: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One tenant with its payers, each a key of an account; `binding` is what runs out first."""

    id: TenantId
    binding: Meter
    payers: Sequence[Payer]
    limits: Sequence[Limit]


def make_world(seed: int, *, tenants: int, holds: int = HOLDS) -> list[Tenant]:
    dice = random.Random(f"world-{seed}")  # noqa: S311  a plan to be repeated
    first = dice.randrange(len(METERS))
    return [
        _make_tenant(dice, METERS[(first + number) % len(METERS)], holds)
        for number in range(tenants)
    ]


def _make_tenant(dice: random.Random, binding: Meter, holds: int) -> Tenant:
    tenant_id = TenantId(_uuid(dice))
    payers = [
        Payer(
            tenant_id=tenant_id,
            account_id=account_id,
            actor_kind="account",
            api_key_id=ApiKeyId(_uuid(dice)),
        )
        for account_id in [AccountId(_uuid(dice)) for _ in range(USERS)]
        for _ in range(KEYS)
    ]
    limits = [
        Limit(
            tenant_id=tenant_id,
            scope=scope,
            subject_id=subject_id,
            meter=meter,
            amount=_amount(scope, meter, holds * (1 if meter == binding else SLACK)),
            is_monthly=dice.random() < 0.5,
        )
        for scope, meter in product(SCOPES, METERS)
        for subject_id in dict.fromkeys(subject_of(payer, scope) for payer in payers)
    ]
    return Tenant(id=tenant_id, binding=binding, payers=payers, limits=limits)


def subject_of(payer: Payer, scope: Scope) -> UUID:
    """Name whose quotas bind the payer in a scope."""
    if scope == "tenant":
        return payer.tenant_id
    if scope == "user":
        return payer.account_id
    assert payer.api_key_id is not None
    return payer.api_key_id


def _amount(scope: Scope, meter: Meter, holds: int) -> int:
    each = {"requests": 1, "tokens": MOST_TOKENS, "cost": MOST_TOKENS * NANOS_A_TOKEN}[meter]
    return round(holds * WIDTHS[scope]) * each


def _uuid(dice: random.Random) -> UUID:
    return UUID(int=dice.getrandbits(128), version=4)


def price(tokens: int) -> Amounts:
    """What a call of so many tokens asks for: every meter at once."""
    return Amounts(requests=1, tokens=tokens, cost_nanos=tokens * NANOS_A_TOKEN, currency=CURRENCY)


async def install(
    connection: "asyncpg.Connection[asyncpg.Record]", world: Sequence[Tenant]
) -> None:
    """Make the tenants and set their quotas, as whoever sets one does: with plain inserts."""
    await connection.executemany(
        "INSERT INTO tenants (id, slug, name) VALUES ($1, $2, $2)",
        [(tenant.id, f"tenant-{number}") for number, tenant in enumerate(world)],
    )
    await connection.executemany(
        "INSERT INTO quotas (id, tenant_id, scope, subject_id, meter, period, currency,"
        " limit_amount, version, created_at, updated_at)"
        " VALUES (gen_random_uuid(), $1, $2, $3, $4, $5, $6, $7, 1, now(), now())",
        list(_rows(world)),
    )


def _rows(world: Sequence[Tenant]) -> Iterator[tuple[object, ...]]:
    for tenant in world:
        for limit in tenant.limits:
            yield (
                *(limit.tenant_id, limit.scope, limit.subject_id, limit.meter),
                "month" if limit.is_monthly else "total",
                CURRENCY if limit.meter == "cost" else None,
                limit.amount,
            )
