"""The way back in for whoever forgot their password: a link by mail."""

from collections.abc import Callable
from dataclasses import dataclass

from maas.audit.public import Actor, current_scope
from maas.shared.domain.call import current_call
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.user.application.admin_ports import SessionEffects, SessionMarks, marks_of
from maas.user.application.joining_ports import JoiningUnitOfWork
from maas.user.application.ports import PasswordHasher
from maas.user.application.trail import ACCOUNT
from maas.user.domain.account import Account, EmailAddress
from maas.user.domain.links import InvalidLinkError, Link, hash_link
from maas.user.domain.passwords import check_password


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordResetService:
    unit_of_work: Callable[[], JoiningUnitOfWork]
    passwords: PasswordHasher
    marks: SessionMarks
    clock: Clock
    password_min_length: int

    async def ask(self, email: EmailAddress) -> None:
        """Ask for a link; whether anybody has this address is found out by whoever mails it.

        So this does the same, in the same time, for every address there is.
        """
        scope = current_scope()
        scope.tenant_id = current_call().tenant_id = DEFAULT_TENANT_ID
        scope.email = str(email)
        async with self.unit_of_work() as uow:
            await uow.ask_for_mail("reset-password", email)
            await uow.commit()

    async def reset(self, token: str, new_password: str, *, revoke_api_keys: bool) -> None:
        """Set a new password and end every session of the account, and its API keys if told to.

        A password that will not do leaves the link good for another try.

        Raises:
            InvalidLinkError: unknown, used, too old, or of a suspended account.
            WeakPasswordError: the password will not do.
        """
        scope, token_hash = current_scope(), hash_link(token)
        scope.tenant_id = DEFAULT_TENANT_ID
        async with self.unit_of_work() as uow:
            link = await uow.find_link(token_hash, "reset-password")
            if link is None:
                raise InvalidLinkError
            account = await uow.accounts.get(link.account_id)
        check_password(
            new_password,
            username=account.username,
            email=account.email,
            min_length=self.password_min_length,
        )
        password_hash, now = await self.passwords.hash(new_password), self.clock.now()
        async with self.unit_of_work() as uow:
            link = await uow.spend_link(token_hash, "reset-password")
            if link is None:
                raise InvalidLinkError
            account = await uow.accounts.get(link.account_id)
            _check_still_theirs(account, link)
            scope.actor = Actor("account", account.id, name=str(account.username))
            scope.tenant_id = account.home_tenant_id
            account.set_password(password_hash, at=now)
            account.verify_email(at=now)
            # Keys before sessions, as whoever narrows a role takes them.
            keys = await uow.revoke_keys(account.id) if revoke_api_keys else []
            sessions = await uow.sessions.list_live(account.id, at=now)
            for session in sessions:
                session.revoke("password-reset", at=now)
            await uow.ask_for_mail("password-changed", account.email)
            scope.change(
                ACCOUNT,
                account.id,
                after={
                    "status": account.status,
                    "password_change_required": False,
                    "sessions_ended": len(sessions),
                    "api_keys_revoked": len(keys),
                },
            )
            await uow.commit()
        await self.marks.announce(SessionEffects(ended=marks_of(sessions), stale_keys=keys))


def _check_still_theirs(account: Account, link: Link) -> None:
    # A pending one, too: somebody else may have registered it, with a password they know.
    if account.status not in {"pending", "active"} or account.email.value != link.email:
        raise InvalidLinkError
