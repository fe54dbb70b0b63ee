"""Where names lead: the `Routes` port, over PostgreSQL and no older than `ROUTE_SECONDS`.

A call asks for a name in its caller's tenant, and for a route in the deployment's own: two reads,
each shared for a moment by whoever asks for the same. What one of them tells, the other does not,
so that their ages do not add up.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from maas.inference.application.ports import NamedModel
from maas.inference.domain.deployment import (
    Deployment,
    DeploymentName,
    InvalidDeploymentNameError,
    TargetThing,
)
from maas.inference.domain.failures import UnknownModelError
from maas.inference.domain.route import ROUTE_SECONDS, Route
from maas.inference.domain.routes import FindLocal, make_route
from maas.inference.infrastructure.deployment_rows import DEPLOYMENT_COLUMNS, read_deployment
from maas.inference.infrastructure.route_cache import SharedReads
from maas.inference.public import DeploymentId
from maas.model.public import (
    ServedVersion,
    ServedVersions,
    SuppliedModel,
    SuppliedModels,
    Uncallable,
    VersionReference,
)
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import Database

MAX_ENTRIES: Final = 10_000
MAX_NAMES: Final = 10_000
"""So many names one tenant is told of."""


def _callable(*, name: str = "") -> str:
    """Spell what the tenant `$1` may call, by rank: its own, granted to it, public.

    Of one rank the older comes first: nobody takes a name over from who had it.
    """
    named = f"AND d.name = {name}" if name else ""
    shown = "d.id, d.tenant_id, d.name, d.status, d.created_at"
    return f"""
        SELECT {shown}, 0 AS rank, d.created_at AS since FROM deployments d
        WHERE d.tenant_id = $1 AND d.deleted_at IS NULL {named}
        UNION ALL
        SELECT {shown}, 1, g.created_at FROM deployment_grants g
        JOIN deployments d ON d.id = g.deployment_id AND d.tenant_id = g.tenant_id
        WHERE g.grantee_id = $1 AND d.tenant_id <> $1 AND d.deleted_at IS NULL {named}
        UNION ALL
        SELECT {shown}, 2, d.created_at FROM deployments d
        WHERE d.visibility = 'public' AND d.tenant_id <> $1 AND d.deleted_at IS NULL {named}
    """  # noqa: S608  no input in it


FIND_NAME: Final = f"""
SELECT id, tenant_id, status FROM ({_callable(name="$2")}) d ORDER BY rank, since, id LIMIT 1
"""  # noqa: S608  likewise

LIST_NAMES: Final = f"""
SELECT name, tenant_id, created_at FROM (
    SELECT DISTINCT ON (name) * FROM ({_callable()}) d ORDER BY name, rank, since, id
) first WHERE status = 'active' ORDER BY name LIMIT {MAX_NAMES}
"""  # noqa: S608  likewise

GET_DEPLOYMENT: Final = f"""
SELECT {DEPLOYMENT_COLUMNS} FROM deployments d WHERE d.tenant_id = $1 AND d.id = $2
"""  # noqa: S608  likewise

LIST_TARGETS: Final = """
SELECT * FROM deployment_targets WHERE tenant_id = $1 AND deployment_id = $2 ORDER BY position
"""


@dataclass(frozen=True, slots=True)
class _Name:
    """A name as one tenant calls it."""

    tenant_id: TenantId
    name: str


@dataclass(frozen=True, slots=True)
class _Place:
    """A deployment, and the tenant whose it is."""

    tenant_id: TenantId
    deployment_id: DeploymentId


class PostgresRoutes:
    def __init__(
        self,
        database: Database,
        *,
        supplied: SuppliedModels,
        served: ServedVersions,
        find_local: FindLocal,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._supplied = supplied
        self._served = served
        self._find_local = find_local
        self._names: SharedReads[_Name, _Place] = SharedReads(
            self._find_name, seconds=ROUTE_SECONDS, max_entries=MAX_ENTRIES, now=now
        )
        self._routes: SharedReads[_Place, Route] = SharedReads(
            self._read_route, seconds=ROUTE_SECONDS, max_entries=MAX_ENTRIES, now=now
        )

    async def get(self, tenant_id: TenantId, name: str) -> Route:
        return await self._routes.get(await self._names.get(_Name(tenant_id, name)))

    async def get_own(self, tenant_id: TenantId, deployment_id: DeploymentId) -> Route:
        return await self._routes.get(_Place(tenant_id, deployment_id))

    async def list_names(self, tenant_id: TenantId) -> Sequence[NamedModel]:
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(LIST_NAMES, tenant_id)
        return [
            NamedModel(name=row["name"], created_at=row["created_at"], owner=str(row["tenant_id"]))
            for row in rows
        ]

    async def _find_name(self, wanted: _Name) -> _Place:
        try:
            name = DeploymentName(wanted.name)
        except InvalidDeploymentNameError:
            raise UnknownModelError from None
        async with self._database.tenant(wanted.tenant_id) as connection:
            row = await connection.fetchrow(FIND_NAME, wanted.tenant_id, name.value)
        # A name that is switched off is not somebody else's: calls would go where nobody meant.
        if row is None or row["status"] != "active":
            raise UnknownModelError
        return _Place(TenantId(row["tenant_id"]), DeploymentId(row["id"]))

    async def _read_route(self, place: _Place) -> Route:
        async with self._database.tenant(place.tenant_id) as connection:
            row = await connection.fetchrow(GET_DEPLOYMENT, place.tenant_id, place.deployment_id)
            targets = await connection.fetch(LIST_TARGETS, place.tenant_id, place.deployment_id)
        if row is None:
            raise UnknownModelError
        deployment = read_deployment(row.items(), targets)
        return make_route(
            deployment, await self._read_things(deployment), find_local=self._find_local
        )

    async def _read_things(
        self, deployment: Deployment
    ) -> Mapping[TargetThing, SuppliedModel | ServedVersion | Uncallable]:
        """Read what the targets lead to, by the rights of the deployment's own tenant."""
        things = [target.to for target in deployment.targets if target.status == "active"]
        versions = [each for each in things if isinstance(each, VersionReference)]
        models = [each for each in things if not isinstance(each, VersionReference)]
        found: dict[TargetThing, SuppliedModel | ServedVersion | Uncallable] = {}
        found.update((await self._supplied.read(deployment.tenant_id, models)).items())
        found.update((await self._served.read(deployment.tenant_id, versions)).items())
        return found
