"""What registration, invitations and mailed links need from outside."""

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from maas.shared.domain.ids import AccountId, ApiKeyId, TenantId
from maas.user.application.ports import UserUnitOfWork
from maas.user.domain.account import EmailAddress, Username
from maas.user.domain.invitation import Invitation, InvitationId
from maas.user.domain.links import Link, LinkHash, LinkPurpose, MailKind


class JoiningUnitOfWork(UserUnitOfWork, Protocol):
    async def has_username(self, username: Username) -> bool: ...

    async def has_email(self, email: EmailAddress) -> bool: ...

    async def ask_for_mail(
        self, kind: MailKind, recipient: EmailAddress, *, reference: UUID | None = None
    ) -> None:
        """Put a mail into the outbox; one of the same kind that still waits there is enough."""
        ...

    async def find_link(self, token_hash: LinkHash, purpose: LinkPurpose) -> Link | None:
        """Look at a link that is still good."""
        ...

    async def spend_link(self, token_hash: LinkHash, purpose: LinkPurpose) -> Link | None:
        """Take a link that is still good, and every other of its account and purpose with it."""
        ...

    async def find_invitation(self, token_hash: LinkHash) -> Invitation | None:
        """Find an invitation by its link, locked, and act in its tenant from now on."""
        ...

    async def get_invitation(self, invitation_id: InvitationId) -> Invitation:
        """Load one of the tenant's, locked.

        Raises:
            InvitationNotFoundError: there is none in this tenant.
        """
        ...

    def add_invitation(self, invitation: Invitation) -> None: ...

    async def rights_of(self, tenant_id: TenantId, account_id: AccountId) -> frozenset[str]:
        """Tell what the account may do in the tenant now: nothing, if it may not act there."""
        ...

    async def find_key_scopes(self, api_key_id: ApiKeyId) -> Sequence[str] | None:
        """Tell what a key of the tenant names; `None` if it ended, or has bounds of its own."""
        ...

    async def permissions_of(
        self, tenant_id: TenantId, roles: Sequence[str]
    ) -> Mapping[str, Sequence[str]]:
        """Tell what these of the tenant's roles allow; those it does not have are left out."""
        ...
