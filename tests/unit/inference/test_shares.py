"""What tenants get of what there is, whoever came first."""

from uuid import UUID

from maas.inference.domain.shares import Shares
from maas.shared.domain.ids import TenantId

ADA, BOB, CY = (TenantId(UUID(int=number)) for number in (1, 2, 3))


def taken(shares: Shares, tenant_id: TenantId) -> int:
    """Take until there is no more, and tell how often there was."""
    number = 0
    while shares.take(tenant_id):
        number += 1
    return number


def test_nobody_takes_what_others_may_need() -> None:
    shares = Shares(12)

    assert [taken(shares, tenant_id) for tenant_id in (ADA, BOB, CY)] == [6, 3, 2]


def test_the_last_one_is_for_who_has_none() -> None:
    shares = Shares(1)

    assert (taken(shares, ADA), shares.take(BOB)) == (1, False)


def test_what_is_given_back_is_there_for_all() -> None:
    shares = Shares(4)
    assert shares.take(ADA, 2)
    assert not shares.take(BOB, 3)

    shares.give_back(ADA, 2)

    assert shares.take(BOB, 2)
    assert not shares._taken.get(ADA)
