"""Sending what waits in the outbox; only here is a link's token made, and only for its mail."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

import structlog

from maas.shared.application.mail import EmailSender, Mail, MailNotSentError, MailRefusedError
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import AccountId
from maas.user.domain.account import AccountStatus
from maas.user.domain.links import (
    LinkHash,
    LinkPurpose,
    LinkToken,
    MailKind,
    hash_link,
    new_link_token,
)

RUN_SECONDS: Final = 20.0
MAX_AGE: Final = timedelta(hours=24)
"""A mail that could not be sent for so long helps nobody any more."""

LINKS_AN_HOUR: Final = 3
"""More links than this nobody gets in an hour, however often somebody asks for one."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingMail:
    id: UUID
    kind: MailKind
    recipient: str
    reference: UUID | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressee:
    """The account that an address belongs to."""

    account_id: AccountId
    username: str
    email: str
    status: AccountStatus


class MailQueue(Protocol):
    """The outbox as its sender sees it; every method is one transaction."""

    async def take(self, *, at: datetime) -> WaitingMail | None:
        """Take a mail that is due, and put it off in case it is not finished."""
        ...

    async def finish(self, mail: WaitingMail) -> None: ...

    async def give_up(self, mail: WaitingMail, *, reason: str, at: datetime) -> None:
        """Put a mail that will not be delivered among those that were not."""
        ...

    async def find_addressee(self, email: str) -> Addressee | None: ...

    async def keep_link(
        self,
        token_hash: LinkHash,
        purpose: LinkPurpose,
        addressee: Addressee,
        *,
        at: datetime,
        lifetime: timedelta,
    ) -> bool:
        """Keep a link's hash; False if the account had its share of links for this hour."""
        ...

    async def drop_link(self, token_hash: LinkHash) -> None: ...

    async def renew_invitation(
        self, invitation_id: UUID, token_hash: LinkHash, *, at: datetime
    ) -> str | None:
        """Give an open invitation the link that is about to be mailed; tell its tenant's name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MailDispatch:
    """Sends mails at least once: a crash between sending and noting it sends another link."""

    queue: MailQueue
    sender: EmailSender
    clock: Clock
    link_base: str
    lifetimes: Mapping[LinkPurpose, timedelta]

    async def run(self) -> int:
        """Send what is due, for 20 s at most, and tell how many were sent."""
        sent, until = 0, time.monotonic() + RUN_SECONDS
        while time.monotonic() < until:
            mail = await self.queue.take(at=self.clock.now())
            if mail is None:
                break
            sent += await self._send(mail)
        return sent

    async def _send(self, waiting: WaitingMail) -> bool:
        if self.clock.now() - waiting.created_at > MAX_AGE:
            return await self._give_up(waiting, f"Not delivered within {_hours(MAX_AGE)}.")
        token = new_link_token()
        mail = await self._compose(waiting, token)
        if mail is not None:
            try:
                await self.sender.send(mail)
            except MailRefusedError as exc:
                await self.queue.drop_link(hash_link(token))
                return await self._give_up(waiting, exc.reason)
            except MailNotSentError as exc:
                await self.queue.drop_link(hash_link(token))
                log.warning(
                    "mail_put_off",
                    mail_id=str(waiting.id),
                    kind=waiting.kind,
                    error=type(exc.__cause__).__name__,
                )
                return False
            log.info("mail_sent", mail_id=str(waiting.id), kind=waiting.kind)
        await self.queue.finish(waiting)
        return mail is not None

    async def _give_up(self, waiting: WaitingMail, reason: str) -> bool:
        # The reason may hold the address, so it is kept beside the mail, and not in the log.
        log.error("mail_given_up", mail_id=str(waiting.id), kind=waiting.kind)
        await self.queue.give_up(waiting, reason=reason, at=self.clock.now())
        return False

    async def _compose(self, waiting: WaitingMail, token: LinkToken) -> Mail | None:
        """Write the mail, or find that there is nobody to send it to."""
        if waiting.kind == "invitation":
            return await self._invite(waiting, token)
        addressee = await self.queue.find_addressee(waiting.recipient)
        if addressee is None or addressee.status not in {"pending", "active"}:
            return None
        match waiting.kind:
            case "password-changed":
                return _mail(addressee.email, "Your password was changed", _CHANGED, addressee)
            case "already-registered":
                return _mail(addressee.email, "You have an account already", _ALREADY, addressee)
            case "verify-email" | "reset-password":
                return await self._link(waiting.kind, addressee, token)

    async def _link(
        self, purpose: LinkPurpose, addressee: Addressee, token: LinkToken
    ) -> Mail | None:
        lifetime = self.lifetimes[purpose]
        is_kept = await self.queue.keep_link(
            hash_link(token), purpose, addressee, at=self.clock.now(), lifetime=lifetime
        )
        if not is_kept:
            return None
        subject, text = _LINKS[purpose]
        link = f"{self.link_base}/{purpose}#token={token}"
        return _mail(addressee.email, subject, text, addressee, link=link, hours=_hours(lifetime))

    async def _invite(self, waiting: WaitingMail, token: LinkToken) -> Mail | None:
        if waiting.reference is None:
            return None
        tenant = await self.queue.renew_invitation(
            waiting.reference, hash_link(token), at=self.clock.now()
        )
        if tenant is None:
            return None
        text = _INVITED.format(tenant=tenant, link=f"{self.link_base}/register#invitation={token}")
        return Mail(recipient=waiting.recipient, subject="You are invited", text=text)


def _hours(lifetime: timedelta) -> str:
    minutes = round(lifetime.total_seconds() / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"  # noqa: PLR2004  two hours


def _mail(recipient: str, subject: str, text: str, addressee: Addressee, **values: str) -> Mail:
    return Mail(
        recipient=recipient,
        subject=subject,
        text=text.format(username=addressee.username, **values),
    )


_CHANGED: Final = """\
Hello {username},

the password of your account was set anew, and all its sessions were ended.
If this was not you, tell an administrator at once.
"""
_ALREADY: Final = """\
Hello {username},

somebody, maybe you, tried to register with this e-mail address, which has an account already.
Sign in with it; if you forgot the password, ask for a link to set a new one.
"""
_VERIFY: Final = """\
Hello {username},

open this link to show that this e-mail address is yours. It is good once, for {hours}:

{link}

If you did not register, leave it alone.
"""
_RESET: Final = """\
Hello {username},

open this link to set a new password. It is good once, for {hours}:

{link}

If you did not ask for it, leave it alone: nothing changes.
"""
_INVITED: Final = """\
Hello,

you are invited to join {tenant}. Open this link to make your account:

{link}

If you do not know what this is about, leave it alone.
"""
_LINKS: Final[Mapping[LinkPurpose, tuple[str, str]]] = {
    "verify-email": ("Verify your e-mail address", _VERIFY),
    "reset-password": ("Set a new password", _RESET),
}
