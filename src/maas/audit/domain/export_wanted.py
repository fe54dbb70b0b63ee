"""Whether an export is of what somebody asked for: a sound file may be of something else."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from maas.audit.domain.event import spell_instant
from maas.audit.domain.export import Header


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """All of a tenant's events that occurred in a time, unless filters are expected too."""

    tenant_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    is_unfiltered: bool = False

    @property
    def is_anything(self) -> bool:
        return self == Wanted()

    def find_unmet(self, header: Header, recorded_to: datetime | None) -> list[str]:
        """Say what is not as expected; a file of more time than was asked for is good enough."""
        return [
            *self._find_tenant(header),
            *self._find_since(header),
            *self._find_until(header, recorded_to),
            *(["it has filters"] if self.is_unfiltered and header.wanted else []),
        ]

    def _find_tenant(self, header: Header) -> list[str]:
        if self.tenant_id is None or str(self.tenant_id) == header.tenant_id:
            return []
        return [f"it is of tenant {header.tenant_id}"]

    def _find_since(self, header: Header) -> list[str]:
        if self.since is None or header.since is None or header.since <= self.since:
            return []
        return [f"it begins at {spell_instant(header.since)}"]

    def _find_until(self, header: Header, recorded_to: datetime | None) -> list[str]:
        if self.until is None:
            return []
        if header.until is not None and header.until < self.until:
            return [f"it ends at {spell_instant(header.until)}"]
        if header.exported_at < self.until:
            return [f"it was made at {spell_instant(header.exported_at)}"]
        is_cut = header.upto_seq is not None and (recorded_to is None or recorded_to < self.until)
        return [f"it was to go to row {header.upto_seq} and no further"] if is_cut else []
