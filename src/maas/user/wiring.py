"""Builds the user context."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maas.shared.application.ports import Authenticator
from maas.shared.domain.clock import Clock
from maas.shared.infrastructure.auth_settings import AuthSettings
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.mail import make_sender
from maas.shared.infrastructure.rate_limits import RateLimits
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import Settings
from maas.shared.infrastructure.unit_of_work import AuditPort, IdempotencyPort
from maas.user.application.accounts import AccountService
from maas.user.application.admin_acts import AccessActs
from maas.user.application.admin_bulk import BulkService
from maas.user.application.api_keys import ApiKeyService
from maas.user.application.invitations import InvitationService
from maas.user.application.mails import MailDispatch
from maas.user.application.members import InitialPasswords, MemberService
from maas.user.application.own_account import OwnAccountService
from maas.user.application.own_password import OwnPassword
from maas.user.application.password_reset import PasswordResetService
from maas.user.application.quota_settings import QuotaSettingsService
from maas.user.application.registration import RegistrationService
from maas.user.application.roles import RoleService
from maas.user.application.service_accounts import ServiceAccountService
from maas.user.application.sessions import SessionService
from maas.user.application.sign_in import SignInService
from maas.user.application.tenants import TenantService
from maas.user.application.throttle import LoginThrottle
from maas.user.application.token_pairs import SessionOpener
from maas.user.application.usage import UsageService
from maas.user.domain.common_passwords import common_passwords
from maas.user.domain.key_text import ENVIRONMENT_MARKS
from maas.user.domain.throttle import WaitPolicy
from maas.user.infrastructure.admin_repositories import SqlAdminUnitOfWork
from maas.user.infrastructure.admin_sessions import RedisSessionMarks
from maas.user.infrastructure.booking_queries import PostgresBookings
from maas.user.infrastructure.directory import PostgresDirectoryQueries
from maas.user.infrastructure.joining import SqlJoiningUnitOfWork
from maas.user.infrastructure.key_authenticator import CredentialAuthenticator, KeyAuthenticator
from maas.user.infrastructure.key_queries import PostgresKeyQueries
from maas.user.infrastructure.key_repositories import SqlKeyUnitOfWork
from maas.user.infrastructure.key_uses import KeyUses
from maas.user.infrastructure.mail_queue import (
    delete_written_mails,
    forget_addresses,
    open_mail_queue,
)
from maas.user.infrastructure.members import PostgresMembers
from maas.user.infrastructure.passwords import Argon2Hasher
from maas.user.infrastructure.queries import PostgresUserQueries
from maas.user.infrastructure.quota_budgets import Offer, PostgresBudgets, leave_to_the_sweep
from maas.user.infrastructure.quota_queries import PostgresQuotaQueries
from maas.user.infrastructure.quota_repositories import SqlQuotaUnitOfWork
from maas.user.infrastructure.repositories import SqlUserUnitOfWork
from maas.user.infrastructure.session_queries import PostgresSessionQueries
from maas.user.infrastructure.sessions import RedisSessionCache, SessionAuthenticator
from maas.user.infrastructure.throttle import GuardedLoginThrottle, OpenLoginThrottle
from maas.user.infrastructure.tokens import JoseTokenIssuer
from maas.user.infrastructure.usage_queries import PostgresUsageLedger

GENERATED_PASSWORD_BYTES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class UserContext:
    authenticator: Authenticator
    accounts: AccountService
    state: Mapping[str, object]
    budgets: PostgresBudgets
    bookings: PostgresBookings
    members: PostgresMembers
    hasher: Argon2Hasher
    key_uses: KeyUses

    def start(self) -> None:
        """Begin to note when keys are used."""
        self.key_uses.start()

    async def close(self) -> None:
        await self.key_uses.stop()
        await self.budgets.close()
        self.hasher.close()


def build_user(
    *,
    database: Database,
    redis: RedisGate,
    audit: AuditPort,
    idempotency: IdempotencyPort,
    clock: Clock,
    settings: AuthSettings,
    secret_key: str,
    environment: str,
    rate_limits: RateLimits | None = None,
    offer: Offer = leave_to_the_sweep,
) -> UserContext:
    """Build it; `offer` is told the events of calls, once they are committed."""

    def unit_of_work() -> SqlUserUnitOfWork:
        return SqlUserUnitOfWork(database.engine, audit=audit, idempotency=idempotency)

    # Now, and not on the event loop when the first password is chosen.
    common_passwords()
    queries = PostgresUserQueries(database)
    hasher = Argon2Hasher(settings)
    tokens = JoseTokenIssuer(settings, secret_key=secret_key, clock=clock)
    cache = RedisSessionCache(redis, access_lifetime=settings.access_token_lifetime)
    marks = RedisSessionMarks(redis, access_lifetime=settings.access_token_lifetime)
    throttle = _throttle(settings, database)
    own_password = OwnPassword(passwords=hasher, throttle=throttle)
    accounts = AccountService(
        unit_of_work=unit_of_work,
        queries=queries,
        passwords=hasher,
        marks=marks,
        own_password=own_password,
        clock=clock,
        password_min_length=settings.password_min_length,
    )
    opener = SessionOpener(
        tokens=tokens,
        access_lifetime=settings.access_token_lifetime,
        refresh_lifetime=settings.refresh_token_lifetime,
        refresh_idle=settings.refresh_token_idle,
    )
    sessions = SessionService(
        unit_of_work=unit_of_work,
        queries=PostgresSessionQueries(database),
        opener=opener,
        cache=cache,
        marks=marks,
        clock=clock,
    )
    sign_ins = SignInService(
        unit_of_work=unit_of_work,
        queries=queries,
        passwords=hasher,
        tokens=tokens,
        opener=opener,
        throttle=throttle,
        cache=cache,
        clock=clock,
    )
    admin = _build_admin(
        database=database,
        redis=redis,
        audit=audit,
        idempotency=idempotency,
        clock=clock,
        settings=settings,
        hasher=hasher,
        own_password=own_password,
    )

    keys = _build_keys(
        database=database,
        redis=redis,
        audit=audit,
        idempotency=idempotency,
        clock=clock,
        settings=settings,
        environment=environment,
    )

    def joining_unit_of_work() -> SqlJoiningUnitOfWork:
        return SqlJoiningUnitOfWork(database.engine, audit=audit, idempotency=idempotency)

    joining = {
        "registrations": RegistrationService(
            unit_of_work=joining_unit_of_work,
            passwords=hasher,
            clock=clock,
            mode=settings.registration,
            password_min_length=settings.password_min_length,
        ),
        "password_resets": PasswordResetService(
            unit_of_work=joining_unit_of_work,
            passwords=hasher,
            marks=marks,
            clock=clock,
            password_min_length=settings.password_min_length,
        ),
        "invitations": InvitationService(
            unit_of_work=joining_unit_of_work,
            clock=clock,
            lifetime=settings.invitation_lifetime,
        ),
    }
    key_uses, budgets = KeyUses(database), PostgresBudgets(database, offer=offer)
    return UserContext(
        authenticator=CredentialAuthenticator(
            sessions=SessionAuthenticator(
                tokens=tokens, redis=redis, database=database, limits=rate_limits
            ),
            keys=KeyAuthenticator(
                redis=redis, database=database, uses=key_uses, limits=rate_limits
            ),
        ),
        accounts=accounts,
        budgets=budgets,
        bookings=PostgresBookings(database),
        members=PostgresMembers(database),
        hasher=hasher,
        key_uses=key_uses,
        state={
            **admin,
            **keys,
            **_build_quota_settings(
                database=database, audit=audit, idempotency=idempotency, clock=clock
            ),
            **joining,
            "sign_ins": sign_ins,
            "sessions": sessions,
            "accounts": accounts,
            "user_queries": queries,
            "budgets": budgets,
            "public_keys": tokens.public_keys,
            "usage": UsageService(ledger=PostgresUsageLedger(database), clock=clock),
        },
    )


def _throttle(settings: AuthSettings, database: Database) -> LoginThrottle:
    if not settings.login_throttle:
        return OpenLoginThrottle()
    policy = WaitPolicy(first=settings.login_first_wait, longest=settings.login_longest_wait)
    return GuardedLoginThrottle(database, policy=policy)


def _build_admin(
    *,
    database: Database,
    redis: RedisGate,
    audit: AuditPort,
    idempotency: IdempotencyPort,
    clock: Clock,
    settings: AuthSettings,
    hasher: Argon2Hasher,
    own_password: OwnPassword,
) -> Mapping[str, object]:
    """Build the services of the admin area, by the names its routes know them under."""

    def unit_of_work() -> SqlAdminUnitOfWork:
        return SqlAdminUnitOfWork(database.engine, audit=audit, idempotency=idempotency)

    def generate_password() -> str:
        return secrets.token_urlsafe(max(GENERATED_PASSWORD_BYTES, settings.password_min_length))

    marks = RedisSessionMarks(redis, access_lifetime=settings.access_token_lifetime)
    acts = AccessActs(clock=clock)
    initial = InitialPasswords(
        passwords=hasher, generate=generate_password, min_length=settings.password_min_length
    )
    return {
        "members": MemberService(
            unit_of_work=unit_of_work, acts=acts, initial=initial, marks=marks
        ),
        "member_bulk": BulkService(
            unit_of_work=unit_of_work, acts=acts, initial=initial, marks=marks
        ),
        "own_account": OwnAccountService(
            unit_of_work=unit_of_work,
            acts=acts,
            own_password=own_password,
            marks=marks,
            clock=clock,
        ),
        "roles": RoleService(unit_of_work=unit_of_work, marks=marks, clock=clock),
        "tenants": TenantService(unit_of_work=unit_of_work, acts=acts, marks=marks, clock=clock),
        "directory": PostgresDirectoryQueries(database),
    }


async def forget_people(settings: Settings, *, data_dir: Path, emails: Sequence[str]) -> None:
    """Forget the addresses of people who are gone, wherever mails and invitations have them."""
    await forget_addresses(settings.database, emails)
    await asyncio.to_thread(delete_written_mails, data_dir / "mail", emails)


def _build_keys(
    *,
    database: Database,
    redis: RedisGate,
    audit: AuditPort,
    idempotency: IdempotencyPort,
    clock: Clock,
    settings: AuthSettings,
    environment: str,
) -> Mapping[str, object]:
    """Build the services of API keys and service accounts."""

    def unit_of_work() -> SqlKeyUnitOfWork:
        return SqlKeyUnitOfWork(database.engine, audit=audit, idempotency=idempotency)

    marks = RedisSessionMarks(redis, access_lifetime=settings.access_token_lifetime)
    return {
        "api_keys": ApiKeyService(
            unit_of_work=unit_of_work,
            marks=marks,
            clock=clock,
            choose=secrets.choice,
            mark=ENVIRONMENT_MARKS[environment],
        ),
        "service_accounts": ServiceAccountService(
            unit_of_work=unit_of_work, marks=marks, clock=clock
        ),
        "key_queries": PostgresKeyQueries(database),
    }


def _build_quota_settings(
    *, database: Database, audit: AuditPort, idempotency: IdempotencyPort, clock: Clock
) -> Mapping[str, object]:
    """Build what sets and shows quotas; `Budgets` is what charges them."""

    def unit_of_work() -> SqlQuotaUnitOfWork:
        return SqlQuotaUnitOfWork(
            database.engine, audit=audit, idempotency=idempotency, clock=clock
        )

    return {
        "quota_settings": QuotaSettingsService(unit_of_work=unit_of_work, clock=clock),
        "quota_queries": PostgresQuotaQueries(database, clock),
    }


async def send_due_mails(settings: Settings, *, data_dir: Path, clock: Clock) -> int:
    """Send what waits in the outbox, over a connection of its own; return how many went out."""
    auth = settings.auth
    async with open_mail_queue(settings.database) as queue:
        dispatch = MailDispatch(
            queue=queue,
            sender=make_sender(settings.mail, data_dir=data_dir, clock=clock),
            clock=clock,
            link_base=settings.mail.link_base.rstrip("/"),
            lifetimes={
                "verify-email": auth.email_verification_lifetime,
                "reset-password": auth.password_reset_lifetime,
            },
        )
        return await dispatch.run()
