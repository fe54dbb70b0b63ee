"""One's own sessions and tenants."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import ConfigDict, Field

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.domain.ids import SessionId
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import Instant, ReadModel, StrictModel
from maas.user.application.errors import AccountNotFoundError, NoMembershipError
from maas.user.application.sessions import (
    SessionDetails,
    SessionNotFoundError,
    SessionRequiredError,
    SessionService,
    TenantDetails,
)
from maas.user.interface.auth import render_pair
from maas.user.interface.schemas import TokenPairRead

auth_router = APIRouter(prefix="/auth", tags=["auth"], route_class=StrictRoute)
self_router = APIRouter(prefix="/users", tags=["self"], route_class=StrictRoute)


async def _sessions(request: Request) -> SessionService:
    return cast("SessionService", request.scope["state"]["sessions"])


Sessions = Annotated[SessionService, Depends(_sessions)]


class TenantSwitch(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"tenant": "research"}]})

    tenant: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="The slug of a tenant you are a member of; `GET /users/tenants` lists them."
    )


class SessionRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-000000000004",
                    "created_at": "2026-11-21T08:00:00Z",
                    "last_used_at": "2026-11-21T09:10:00Z",
                    "expires_at": "2026-11-28T09:10:00Z",
                    "address": "192.0.2.7",
                    "user_agent": "curl/8.9",
                    "tenant_id": "01900000-0000-7000-8000-000000000001",
                    "tenant": "default",
                    "is_current": True,
                }
            ]
        }
    )

    id: UUID
    created_at: Instant
    last_used_at: Instant = Field(description="When its tokens were last refreshed.")
    expires_at: Instant = Field(description="When it ends, unless it is refreshed before.")
    address: str | None = Field(description="Where it was opened from.")
    user_agent: str | None
    tenant_id: UUID
    tenant: str
    is_current: bool = Field(description="Whether this very request belongs to it.")


class OwnTenantRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01900000-0000-7000-8000-000000000001",
                    "slug": "default",
                    "name": "Default",
                    "created_at": "2026-11-01T08:00:00Z",
                    "is_current": True,
                }
            ]
        }
    )

    id: UUID
    slug: str
    name: str
    created_at: Instant
    is_current: bool = Field(description="Whether the token at hand acts in it.")


@auth_router.post(
    "/switch-tenant",
    dependencies=[requires("self:write")],
    summary="Open a session in another of one's tenants; this one stays as it is",
)
@audited("auth.tenant_switched")
@may_refuse(AccountNotFoundError, NoMembershipError, SessionRequiredError)
async def switch_tenant(body: TenantSwitch, caller: Caller, sessions: Sessions) -> TokenPairRead:
    """Give out a pair for the other tenant.

    The new session shows up among one's own, ends by itself no later than this one would, and is
    ended like any other; this session stays, so both tenants can be open side by side.
    """
    return render_pair(await sessions.switch_tenant(caller, body.tenant))


@auth_router.post(
    "/logout-all",
    status_code=204,
    dependencies=[requires("self:write")],
    summary="End all of one's sessions, this one included",
    description=(
        "Sessions in every tenant end. API keys go on, unless `revoke_api_keys=true` says that "
        "those of every tenant end too: a stolen session may have made some."
    ),
)
@audited("auth.logout_all")
@may_refuse(AccountNotFoundError)
async def logout_all(
    caller: Caller,
    sessions: Sessions,
    *,
    revoke_api_keys: Annotated[
        bool, Query(description="Whether one's own API keys end as well.")
    ] = False,
) -> None:
    await sessions.end_all_own(caller, revoke_api_keys=revoke_api_keys)


@auth_router.get(
    "/sessions",
    dependencies=[requires("self:read")],
    summary="List one's own live sessions, in all tenants, newest first",
    description="A session counts as used when its tokens are refreshed, not at each request.",
)
async def list_sessions(
    caller: Caller, sessions: Sessions, paging: Paging
) -> PageRead[SessionRead]:

    def render(details: SessionDetails) -> SessionRead:
        return SessionRead(
            id=details.id,
            created_at=details.created_at,
            last_used_at=details.last_used_at,
            expires_at=details.expires_at,
            address=details.address,
            user_agent=details.user_agent,
            tenant_id=details.tenant_id,
            tenant=details.tenant,
            is_current=details.id == caller.session_id,
        )

    return PageRead[SessionRead].of(await sessions.list_own(caller, paging), render)


@auth_router.delete(
    "/sessions/{id}",
    status_code=204,
    dependencies=[requires("self:write")],
    summary="End one of one's own sessions",
    description="Its tokens are worth nothing from now on. It may be the session that asks.",
)
@audited("auth.session_ended")
@may_refuse(SessionNotFoundError)
async def end_session(id: UUID, caller: Caller, sessions: Sessions) -> None:  # noqa: A002  the path's name
    await sessions.end_own(caller, SessionId(id))


@self_router.get(
    "/tenants",
    dependencies=[requires("self:read")],
    summary="List the tenants one may act in, newest first",
    description="Only active tenants, and only where one's membership is not suspended.",
)
async def list_tenants(
    caller: Caller, sessions: Sessions, paging: Paging
) -> PageRead[OwnTenantRead]:

    def render(details: TenantDetails) -> OwnTenantRead:
        return OwnTenantRead(
            id=details.id,
            slug=details.slug,
            name=details.name,
            created_at=details.created_at,
            is_current=details.id == caller.tenant_id,
        )

    page = await sessions.queries.list_tenants(caller.account_id, page=paging)
    return PageRead[OwnTenantRead].of(page, render)
