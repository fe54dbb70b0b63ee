"""Invitations: a link that lets one person register into a tenant, with roles."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NewType
from uuid import UUID

from maas.shared.domain.errors import InvalidInputError, NotFoundError, PermissionDeniedError
from maas.shared.domain.ids import AccountId, ApiKeyId, TenantId
from maas.user.domain.account import EmailAddress
from maas.user.domain.links import LinkHash

InvitationId = NewType("InvitationId", UUID)

INVITING: Final = "user:write"
"""The permission to invite; whoever loses it takes their open invitations along."""


class InvalidInvitationError(InvalidInputError):
    """Unknown, used, withdrawn, expired, or for another address; never says which.

    Nor whether its maker may not give these roles any more.
    """

    code = "invalid-invitation"
    title = "The invitation is not valid"

    def __init__(self) -> None:
        super().__init__(
            "The invitation is unknown, used, withdrawn, too old, or for another e-mail address."
        )


class PersonRequiredError(PermissionDeniedError):
    code = "person-required"
    title = "Only a person invites"

    def __init__(self) -> None:
        super().__init__(
            "An invitation is good while whoever made it may still give its roles, and is answered "
            "for by a person: have one invite, or make the account with `POST /admin/users`."
        )


class InvitationNotFoundError(NotFoundError):
    code = "invitation-not-found"
    title = "No such invitation"


@dataclass(eq=False, kw_only=True)
class Invitation:
    """Open until it is accepted, withdrawn or too old.

    `api_key_id` is set if a key of the person made it, who `invited_by` names.
    """

    id: InvitationId
    tenant_id: TenantId
    email: EmailAddress
    roles: list[str]
    token_hash: LinkHash
    invited_by: AccountId
    created_at: datetime
    expires_at: datetime
    api_key_id: ApiKeyId | None = None
    accepted_at: datetime | None = None
    accepted_by: AccountId | None = None
    revoked_at: datetime | None = None

    def is_open(self, at: datetime) -> bool:
        return self.accepted_at is None and self.revoked_at is None and at < self.expires_at

    def accept(self, account_id: AccountId, *, email: EmailAddress, at: datetime) -> None:
        """Let the person in whom it was made for.

        Raises:
            InvalidInvitationError: not open any more, or somebody else's.
        """
        if not self.is_open(at) or email.key != self.email.key:
            raise InvalidInvitationError
        self.accepted_at = at
        self.accepted_by = account_id

    def withdraw(self, *, at: datetime) -> None:
        """Close it; closing one that is closed changes nothing."""
        if self.is_open(at):
            self.revoked_at = at
