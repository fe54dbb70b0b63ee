"""The services of quotas, as routes ask for them, and how a sheet is read and set."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request, Response

from maas.shared.domain.ids import TenantId
from maas.shared.interface.etags import RequiredIfMatch, etag_of
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller
from maas.user.application.quota_ports import QuotaQueries, QuotaSheet, QuotaSubject
from maas.user.application.quota_settings import QuotaSettingsService
from maas.user.interface.quota_schemas import QuotaSheetRead, QuotasUpdate, wishes_of

SET = (
    "Replaces them all: a quota that is not named goes, one that stays keeps what it counted, "
    "and a new one begins with what was used in its period. A limit below what is used grants "
    "nothing more. The `ETag` is of the limits, and not of what is used of them."
)
"""What setting quotas does, whosever they are."""


class SheetRoute(StrictRoute):
    """Its `ETag` is of the limits, so that no charge comes between reading and setting them."""

    spares_unchanged = False


async def _settings(request: Request) -> QuotaSettingsService:
    return cast("QuotaSettingsService", request.scope["state"]["quota_settings"])


async def _queries(request: Request) -> QuotaQueries:
    return cast("QuotaQueries", request.scope["state"]["quota_queries"])


Settings = Annotated[QuotaSettingsService, Depends(_settings)]
Queries = Annotated[QuotaQueries, Depends(_queries)]


@dataclass(frozen=True, slots=True)
class _SheetReading:
    caller: Caller
    queries: Queries
    response: Response

    async def read(
        self, subject: QuotaSubject, *, tenant_id: TenantId | None = None
    ) -> QuotaSheetRead:
        """Answer with a sheet of the tenant one acts in, or of another."""
        sheet = await self.queries.get_sheet(tenant_id or self.caller.tenant_id, subject)
        return _render(sheet, self.response)


@dataclass(frozen=True, slots=True)
class _SheetSetting:
    caller: Caller
    settings: Settings
    if_match: RequiredIfMatch
    response: Response

    async def replace(self, subject: QuotaSubject, body: QuotasUpdate) -> QuotaSheetRead:
        sheet = await self.settings.replace(
            self.caller, subject, wishes_of(body), check=self.if_match.check
        )
        return _render(sheet, self.response)


SheetReading = Annotated[_SheetReading, Depends()]
SheetSetting = Annotated[_SheetSetting, Depends()]


def _render(sheet: QuotaSheet, response: Response) -> QuotaSheetRead:
    response.headers["ETag"] = etag_of(sheet.version)
    return QuotaSheetRead.model_validate(sheet)
