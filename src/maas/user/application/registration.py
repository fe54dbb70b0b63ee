"""Making an account of one's own, and showing that the e-mail address is one's own too."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from maas.audit.public import Actor, current_scope
from maas.shared.domain.call import current_call
from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import PermissionDeniedError
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, TenantId, new_id
from maas.shared.domain.principal import meet, named
from maas.user.application.errors import EmailTakenError, UsernameTakenError
from maas.user.application.joining_ports import JoiningUnitOfWork
from maas.user.application.ports import PasswordHasher
from maas.user.application.trail import ACCOUNT
from maas.user.domain.account import Account, DisplayName, EmailAddress, Username
from maas.user.domain.grants import BeyondOwnRightsError, Granter
from maas.user.domain.invitation import INVITING, InvalidInvitationError, Invitation
from maas.user.domain.links import InvalidLinkError, hash_link
from maas.user.domain.passwords import check_password

RegistrationMode: TypeAlias = Literal["open", "invitation", "closed"]
RegistrationStatus: TypeAlias = Literal["verify-email", "ready"]

OPEN_ROLES: Final = ("user",)
"""What whoever registers without an invitation may do, in the default tenant."""

EVEN_SECONDS: Final = 0.25
"""An open registration takes this long at least, so that its time tells nothing of the e-mail."""


class RegistrationClosedError(PermissionDeniedError):
    code = "registration-closed"
    title = "Registration is closed"

    def __init__(self) -> None:
        super().__init__("Ask an administrator for an account.")


class InvitationRequiredError(PermissionDeniedError):
    code = "invitation-required"
    title = "Registration needs an invitation"

    def __init__(self) -> None:
        super().__init__("Ask an administrator for an invitation.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Who wants to join, in their own words."""

    username: Username
    email: EmailAddress
    password: str
    display_name: DisplayName | None
    invitation: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationService:
    unit_of_work: Callable[[], JoiningUnitOfWork]
    passwords: PasswordHasher
    clock: Clock
    mode: RegistrationMode
    password_min_length: int

    async def register(self, wanted: Registration) -> RegistrationStatus:
        """Make an account: ready with an invitation, else waiting for its e-mail to be verified.

        Without an invitation an e-mail address that has an account already is answered as any
        other; its owner is told by mail.

        Raises:
            RegistrationClosedError, InvitationRequiredError: it is not open to everybody.
            InvalidInvitationError: not good, or not for this e-mail.
            WeakPasswordError: the password will not do.
            UsernameTakenError: somebody has it already.
            EmailTakenError: the invited person has an account already.
        """
        scope = current_scope()
        scope.actor = Actor("anonymous", None, name=str(wanted.username))
        scope.email = str(wanted.email)
        scope.tenant_id = current_call().tenant_id = DEFAULT_TENANT_ID
        if self.mode == "closed":
            raise RegistrationClosedError
        if self.mode == "invitation" and wanted.invitation is None:
            raise InvitationRequiredError
        check_password(
            wanted.password,
            username=wanted.username,
            email=wanted.email,
            min_length=self.password_min_length,
        )
        if wanted.invitation is not None:
            await self._join(wanted, wanted.invitation)
            return "ready"
        even = asyncio.create_task(asyncio.sleep(EVEN_SECONDS))
        try:
            await self._register_openly(wanted)
        finally:
            await even
        return "verify-email"

    async def _register_openly(self, wanted: Registration) -> None:
        password_hash = await self.passwords.hash(wanted.password)
        try:
            await self._add_pending(wanted, password_hash)
        except EmailTakenError:
            async with self.unit_of_work() as uow:
                await uow.ask_for_mail("already-registered", wanted.email)
                current_scope().fail(EmailTakenError.code)
                await uow.commit()

    async def _add_pending(self, wanted: Registration, password_hash: str) -> None:
        async with self.unit_of_work() as uow:
            # The name first: else a name known to be taken would tell of any e-mail address.
            if await uow.has_username(wanted.username):
                raise UsernameTakenError
            if await uow.has_email(wanted.email):
                raise EmailTakenError
            account = self._account(wanted, password_hash, home=DEFAULT_TENANT_ID)
            account.status = "pending"
            uow.accounts.add(account)
            await uow.add_membership(
                account.id, DEFAULT_TENANT_ID, roles=OPEN_ROLES, at=account.created_at
            )
            await uow.ask_for_mail("verify-email", wanted.email)
            current_scope().change(
                ACCOUNT, account.id, after={"status": "pending", "roles": OPEN_ROLES}
            )
            await uow.commit()

    async def _join(self, wanted: Registration, token: str) -> None:
        scope, token_hash = current_scope(), hash_link(token)
        async with self.unit_of_work() as uow:
            # Hashing is dear, so a made-up invitation must not reach it.
            invitation = await uow.find_invitation(token_hash)
        if invitation is None:
            raise InvalidInvitationError
        password_hash = await self.passwords.hash(wanted.password)
        async with self.unit_of_work() as uow:
            invitation = await uow.find_invitation(token_hash)
            if invitation is None:
                raise InvalidInvitationError
            tenant_id = invitation.tenant_id
            scope.tenant_id = tenant_id
            account = self._account(wanted, password_hash, home=tenant_id)
            invitation.accept(account.id, email=wanted.email, at=account.created_at)
            # A role may have been taken away since.
            allowed = await uow.permissions_of(tenant_id, invitation.roles)
            if not allowed:
                raise InvalidInvitationError
            await _check_still_given(uow, invitation, allowed.values())
            roles = sorted(allowed)
            uow.accounts.add(account)
            await uow.add_membership(account.id, tenant_id, roles=roles, at=account.created_at)
            scope.change(ACCOUNT, account.id, after={"status": "active", "roles": roles})
            await uow.commit()

    def _account(self, wanted: Registration, password_hash: str, *, home: TenantId) -> Account:
        now = self.clock.now()
        return Account(
            id=AccountId(new_id()),
            username=wanted.username,
            email=wanted.email,
            display_name=wanted.display_name,
            password_hash=password_hash,
            password_change_required=False,
            status="active",
            home_tenant_id=home,
            last_tenant_id=None,
            created_at=now,
            updated_at=now,
        )

    async def verify_email(self, token: str) -> None:
        """Take the link in the mail as proof; an account that waited for it can sign in.

        Raises:
            InvalidLinkError: unknown, used, too old, or the address changed since.
        """
        scope, now = current_scope(), self.clock.now()
        scope.tenant_id = DEFAULT_TENANT_ID
        async with self.unit_of_work() as uow:
            link = await uow.spend_link(hash_link(token), "verify-email")
            if link is None:
                raise InvalidLinkError
            account = await uow.accounts.get(link.account_id)
            if account.email.value != link.email or account.status not in {"pending", "active"}:
                raise InvalidLinkError
            before = account.status
            account.verify_email(at=now)
            scope.actor = Actor("account", account.id, name=str(account.username))
            scope.tenant_id = account.home_tenant_id
            scope.change(
                ACCOUNT, account.id, before={"status": before}, after={"status": account.status}
            )
            await uow.commit()


async def _check_still_given(
    uow: JoiningUnitOfWork, invitation: Invitation, allowed: Iterable[Sequence[str]]
) -> None:
    """Refuse what its maker could not give any more: who was let go must not let anybody in.

    Raises:
        InvalidInvitationError.
    """
    rights = await uow.rights_of(invitation.tenant_id, invitation.invited_by)
    if invitation.api_key_id is not None:
        scopes = await uow.find_key_scopes(invitation.api_key_id)
        rights = frozenset() if scopes is None else named(meet(scopes, list(rights)))
    granter = Granter(account_id=invitation.invited_by, rights=rights)
    try:
        granter.check_within([INVITING, *(right for each in allowed for right in each)])
    except BeyondOwnRightsError:
        raise InvalidInvitationError from None
