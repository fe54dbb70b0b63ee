"""What the routes of aliases ask for."""

from typing import Annotated, cast

from fastapi import Depends, Path, Request

from maas.model.application.aliases import AliasQueries, AliasService
from maas.model.domain.alias import AliasName, InvalidAliasNameError
from maas.shared.domain.errors import may_refuse


async def _aliases(request: Request) -> AliasService:
    return cast("AliasService", request.scope["state"]["model_aliases"])


async def _alias_queries(request: Request) -> AliasQueries:
    return cast("AliasQueries", request.scope["state"]["model_alias_queries"])


@may_refuse(InvalidAliasNameError)
async def _alias_name(
    alias: Annotated[str, Path(description="The alias.", examples=["production"])],
) -> AliasName:
    return AliasName(alias)


Aliases = Annotated[AliasService, Depends(_aliases)]
AliasReads = Annotated[AliasQueries, Depends(_alias_queries)]
AliasNamePath = Annotated[AliasName, Depends(_alias_name)]
