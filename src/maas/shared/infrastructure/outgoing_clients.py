"""Two clients for what tenants have called, so that a tenant's address reaches nothing private."""

from dataclasses import dataclass
from typing import Literal, Self

from maas.shared.infrastructure.outgoing import (
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_A_HOST,
    OutgoingClient,
)
from maas.shared.infrastructure.outgoing_targets import Targets
from maas.shared.infrastructure.settings import OutgoingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientsByReach:
    """The operator's private targets are open to `private` alone."""

    public: OutgoingClient
    private: OutgoingClient

    @classmethod
    def of(
        cls,
        settings: OutgoingSettings,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_connections_a_host: int = MAX_CONNECTIONS_A_HOST,
    ) -> Self:
        listed = Targets.of(settings)

        def client(targets: Targets) -> OutgoingClient:
            return OutgoingClient(
                targets,
                ca_file=settings.ca_file,
                max_connections=max_connections,
                max_connections_a_host=max_connections_a_host,
            )

        return cls(public=client(Targets(ports=listed.ports)), private=client(listed))

    def reaching(self, reach: Literal["public", "private"]) -> OutgoingClient:
        return self.private if reach == "private" else self.public

    async def close(self) -> None:
        await self.public.close()
        await self.private.close()
