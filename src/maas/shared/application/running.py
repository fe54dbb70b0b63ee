"""Places for what people have done now and wait for: each calls somebody else, who may hang."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from maas.shared.domain.errors import TooManyRequestsError
from maas.shared.domain.ids import TenantId

T = TypeVar("T", bound=Hashable)


class RunningTests(Generic[T]):
    """Those of one process: one of each thing that is tested, and so many of a tenant."""

    def __init__(self, *, of_tenant: int, refuse: Callable[[], TooManyRequestsError]) -> None:
        self._of_tenant = of_tenant
        self._refuse = refuse
        self._things: set[T] = set()
        self._tenants: Counter[TenantId] = Counter()

    @contextmanager
    def one(self, tenant_id: TenantId, thing: T) -> Iterator[None]:
        """Take a place as long as a test runs.

        Raises:
            TooManyRequestsError: there is none; it is what `refuse` makes.
        """
        if thing in self._things or self._tenants[tenant_id] >= self._of_tenant:
            raise self._refuse()
        self._things.add(thing)
        self._tenants[tenant_id] += 1
        try:
            yield
        finally:
            self._things.remove(thing)
            self._tenants[tenant_id] -= 1
            # None is left of a tenant that tests nothing.
            self._tenants += Counter()
