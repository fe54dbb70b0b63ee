"""What a tenant lets into its versions."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from maas.shared.domain.ids import AccountId


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """As they are until somebody sets them."""

    allows_pickle: bool = False


class ModelSettingsRepository(Protocol):
    async def get(self) -> ModelSettings: ...

    async def put(self, settings: ModelSettings, *, by: AccountId, at: datetime) -> ModelSettings:
        """Set them, and tell what they were; whoever else sets them waits until the commit."""
        ...
