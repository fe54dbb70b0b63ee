"""What a process has of something, and how much of it one tenant may take."""

from maas.shared.domain.ids import TenantId


class Shares:
    """Gives each tenant as much as it asks for, but never more than it leaves for others.

    So one alone gets half of it all, two get a third each, and who has nothing yet finds something.
    """

    __slots__ = ("_most", "_taken", "_total")

    def __init__(self, most: int) -> None:
        self._most = most
        self._total = 0
        self._taken: dict[TenantId, int] = {}

    def take(self, tenant_id: TenantId, amount: int = 1) -> bool:
        """Tell whether there is so much for this tenant, which then has it until it gives back."""
        mine = self._taken.get(tenant_id, 0) + amount
        if mine > self._most - self._total:
            return False
        self._taken[tenant_id] = mine
        self._total += amount
        return True

    def give_back(self, tenant_id: TenantId, amount: int = 1) -> None:
        self._total -= amount
        left = self._taken[tenant_id] - amount
        if left:
            self._taken[tenant_id] = left
        else:
            del self._taken[tenant_id]
