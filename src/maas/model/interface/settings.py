"""What a tenant lets into its versions."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request
from pydantic import ConfigDict, Field

from maas.audit.public import audited
from maas.model.application.settings import ModelSettingsService
from maas.model.domain.settings import ModelSettings
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import ReadModel, StrictModel

_EXAMPLE = ConfigDict(json_schema_extra={"examples": [{"allows_pickle": False}]})
_ABOUT_PICKLE = (
    "Whether versions may have pickles in them, as `.pt`, `.pth` and `.bin` files often are. "
    "Whoever loads one runs whatever code it holds."
)

router = APIRouter(prefix="/model-settings", tags=["models"], route_class=StrictRoute)


class ModelSettingsUpdate(StrictModel):
    model_config = _EXAMPLE

    allows_pickle: bool = Field(description=_ABOUT_PICKLE)


class ModelSettingsRead(ReadModel):
    model_config = _EXAMPLE

    allows_pickle: bool = Field(description=_ABOUT_PICKLE)


async def _settings(request: Request) -> ModelSettingsService:
    return cast("ModelSettingsService", request.scope["state"]["model_settings"])


Settings = Annotated[ModelSettingsService, Depends(_settings)]


@router.get(
    "",
    dependencies=[requires("model:read")],
    summary="See what may be in the tenant's versions",
    description="As it was last set, or as it is for a tenant that never set it: no pickles.",
)
async def get_model_settings(settings: Settings) -> ModelSettingsRead:
    return ModelSettingsRead.model_validate(await settings.get())


@router.put(
    "",
    dependencies=[requires("model:configure")],
    summary="Say what may be in the tenant's versions",
    description=(
        "Whether pickles are taken. It holds for files that come from now on; those that are "
        "there stay."
    ),
)
@audited("model_settings.updated")
async def set_model_settings(
    body: ModelSettingsUpdate, caller: Caller, settings: Settings
) -> ModelSettingsRead:
    wanted = ModelSettings(allows_pickle=body.allows_pickle)
    return ModelSettingsRead.model_validate(await settings.change(caller, wanted))
