"""The settings of the limits on requests."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from maas.shared.domain.rate_limit import RouteClass
from maas.shared.infrastructure.setting_sections import Section

MOST = 1_000_000

Quota = Annotated[int, Field(ge=1, le=MOST)]


class RateLimitSettings(Section):
    """How many requests are let through; a class without a quota of its own has the general one."""

    enabled: bool = True
    unauthenticated_per_minute: Quota = 100
    registrations_per_hour: Quota = 10
    requests_per_minute: Quota = 3000
    admin_per_minute: Quota | None = None
    auth_per_minute: Quota | None = None
    upload_per_minute: Quota | None = None
    inference_per_minute: Quota | None = None

    @property
    def by_class(self) -> Mapping[RouteClass, int]:
        """How many requests a minute an account has on each class of routes."""
        general = self.requests_per_minute
        return {
            "default": general,
            "admin": self.admin_per_minute or general,
            "auth": self.auth_per_minute or general,
            "upload": self.upload_per_minute or general,
            "inference": self.inference_per_minute or general,
        }
