"""Inviting people into the tenant, and taking an invitation back."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ConfigDict, Field

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import Instant, ReadModel, StrictModel
from maas.user.application.invitations import InvitationService, InvitedRoleNotFoundError
from maas.user.domain.grants import BeyondOwnRightsError, LimitedKeyError
from maas.user.domain.invitation import (
    InvitationId,
    InvitationNotFoundError,
    PersonRequiredError,
)
from maas.user.interface.admin_dependencies import API
from maas.user.interface.admin_schemas import RoleNames
from maas.user.interface.schemas import EmailField

router = APIRouter(prefix="/admin/invitations", tags=["admin"], route_class=StrictRoute)


class InvitationCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"email": "bo@example.com", "roles": ["developer"]}]}
    )

    email: EmailField
    roles: RoleNames = Field(min_length=1)
    send_mail: bool = Field(default=True, description="Whether the platform mails the link itself.")


class InvitationCreatedRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-000000000005",
                    "token": "Hq3v0sJmXoG1b7r2T4yZ8cLdKfWnPeQa",
                    "expires_at": "2026-11-28T08:00:00Z",
                }
            ]
        }
    )

    id: UUID
    token: str = Field(description="What `POST /auth/register` takes; shown only now.")
    expires_at: Instant


async def _invitations(request: Request) -> InvitationService:
    return cast("InvitationService", request.scope["state"]["invitations"])


Invitations = Annotated[InvitationService, Depends(_invitations)]


@router.post(
    "",
    status_code=201,
    dependencies=[requires("user:write")],
    summary="Invite somebody, by e-mail address, with roles within one's own rights",
    description=(
        "Made for one e-mail address and good once, for a while. Whoever accepts it is at "
        "home in this tenant, with those of the roles that still exist by then. The mail "
        "holds a link of its own. It is worth nothing once its maker, or the API key it was made "
        "with, may not give those roles any more. Programs invite nobody."
    ),
)
@audited("invitation.created")
@may_refuse(InvitedRoleNotFoundError, PersonRequiredError, BeyondOwnRightsError, LimitedKeyError)
async def create_invitation(
    body: InvitationCreate, caller: Caller, invitations: Invitations, response: Response
) -> InvitationCreatedRead:
    issued = await invitations.invite(
        caller,
        email=body.email,
        roles=[str(role) for role in body.roles],
        send_mail=body.send_mail,
    )
    response.headers["Location"] = f"{API}/admin/invitations/{issued.id}"
    return InvitationCreatedRead.model_validate(issued)


@router.delete(
    "/{invitation_id}",
    status_code=204,
    dependencies=[requires("user:write")],
    summary="Take an invitation back; its link is worth nothing from now on",
    description=(
        "One that was accepted, withdrawn or has expired stays as it is, and is answered alike."
    ),
)
@audited("invitation.withdrawn")
@may_refuse(InvitationNotFoundError)
async def withdraw_invitation(invitation_id: UUID, invitations: Invitations) -> None:
    await invitations.withdraw(InvitationId(invitation_id))
