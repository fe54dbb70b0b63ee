"""What the use cases of deployments need from the outside."""

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from maas.inference.domain.deployment import DeploymentRepository

CheckRevision: TypeAlias = Callable[[int], None]
"""Raises `PreconditionFailedError` unless the revision is one the caller's If-Match names."""


class DeploymentUnitOfWork(Protocol):
    """One transaction over deployments.

    `commit()`, and an addition before it, turn a lost race for a name into
    `DeploymentNameTakenError`.
    """

    deployments: DeploymentRepository

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def commit(self, result: object = None) -> None: ...
