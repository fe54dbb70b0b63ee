"""The services of quotas, as routes ask for them, and how a sheet is rendered."""

from typing import Annotated, cast

from fastapi import Depends, Request, Response

from maas.shared.interface.etags import etag_of
from maas.shared.interface.readers import StrictRoute
from maas.user.application.quota_ports import QuotaQueries, QuotaSheet
from maas.user.application.quota_settings import QuotaSettingsService
from maas.user.interface.quota_schemas import QuotaSheetRead

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


def render(sheet: QuotaSheet, response: Response) -> QuotaSheetRead:
    response.headers["ETag"] = etag_of(sheet.version)
    return QuotaSheetRead.model_validate(sheet)
