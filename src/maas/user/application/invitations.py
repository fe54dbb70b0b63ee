"""Inviting people into a tenant."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from maas.audit.public import AuditedResource, current_scope
from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import NotFoundError
from maas.shared.domain.ids import new_id
from maas.shared.domain.principal import Principal
from maas.user.application.admin_acts import granter_of
from maas.user.application.joining_ports import JoiningUnitOfWork
from maas.user.domain.account import EmailAddress
from maas.user.domain.invitation import Invitation, InvitationId, PersonRequiredError
from maas.user.domain.links import LinkToken, hash_link, new_link_token

INVITATION: Final = AuditedResource("invitation", frozenset({"roles", "status"}))


class InvitedRoleNotFoundError(NotFoundError):
    """An invitation names a role that the tenant does not have."""

    code = "invited-role-not-found"
    title = "The tenant has no such role"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedInvitation:
    """An invitation and its link's token, which is shown this once."""

    id: InvitationId
    token: LinkToken
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationService:
    unit_of_work: Callable[[], JoiningUnitOfWork]
    clock: Clock
    lifetime: timedelta

    async def invite(
        self,
        principal: Principal,
        *,
        email: EmailAddress,
        roles: Sequence[str],
        send_mail: bool,
    ) -> IssuedInvitation:
        """Make an invitation into the caller's tenant; the mail gets a link of its own.

        Raises:
            InvitedRoleNotFoundError: the tenant lacks one of the roles, or none is named.
            PersonRequiredError: a program calls for itself.
            BeyondOwnRightsError: a role allows more than the caller may do.
            LimitedKeyError: the caller's own bounds would not bind whoever is invited.
        """
        if principal.kind != "account":
            raise PersonRequiredError
        granter = granter_of(principal)
        granter.check_unlimited()
        now, token = self.clock.now(), new_link_token()
        async with self.unit_of_work() as uow:
            allowed = await uow.permissions_of(principal.tenant_id, roles)
            if not roles or len(allowed) < len(set(roles)):
                raise InvitedRoleNotFoundError
            for permissions in allowed.values():
                granter.check_within(permissions)
            invitation = Invitation(
                id=InvitationId(new_id()),
                tenant_id=principal.tenant_id,
                email=email,
                roles=sorted(set(roles)),
                token_hash=hash_link(token),
                invited_by=principal.account_id,
                created_at=now,
                expires_at=now + self.lifetime,
                api_key_id=principal.api_key_id,
            )
            uow.add_invitation(invitation)
            if send_mail:
                await uow.ask_for_mail("invitation", email, reference=invitation.id)
            current_scope().email = str(email)
            current_scope().change(
                INVITATION, invitation.id, after={"roles": invitation.roles, "status": "open"}
            )
            await uow.commit()
        return IssuedInvitation(id=invitation.id, token=token, expires_at=invitation.expires_at)

    async def withdraw(self, invitation_id: InvitationId) -> None:
        """Close one of the tenant's invitations; one that is closed stays as it is.

        Raises:
            InvitationNotFoundError: the tenant has no such invitation.
        """
        async with self.unit_of_work() as uow:
            invitation = await uow.get_invitation(invitation_id)
            invitation.withdraw(at=self.clock.now())
            current_scope().change(INVITATION, invitation.id, after={"status": "withdrawn"})
            await uow.commit()
