"""The transaction of registration, invitations and mailed links."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import TextClause, select, text

from maas.shared.domain.ids import AccountId, ApiKeyId, TenantId, new_id
from maas.user.domain.account import EmailAddress, Username
from maas.user.domain.invitation import Invitation, InvitationId, InvitationNotFoundError
from maas.user.domain.links import Link, LinkHash, LinkPurpose, MailKind
from maas.user.infrastructure.repositories import SqlUserUnitOfWork
from maas.user.infrastructure.sign_in_tables import invitations

_HAS_USERNAME = text("SELECT 1 FROM accounts WHERE lower(username) = lower(:value)")
_HAS_EMAIL = text("SELECT 1 FROM accounts WHERE lower(email) = lower(:value)")
_ASK = text("""
    INSERT INTO outgoing_mails (id, kind, recipient, reference, created_at, due_at)
    VALUES (:id, :kind, :recipient, :reference, clock_timestamp(), clock_timestamp())
    ON CONFLICT DO NOTHING
""")
_FIND_LINK = text("""
    SELECT account_id, email FROM link_tokens
    WHERE token_hash = :hash AND purpose = :purpose AND expires_at > clock_timestamp()
""")
_SPEND_LINK = text("""
    DELETE FROM link_tokens
    WHERE token_hash = :hash AND purpose = :purpose AND expires_at > clock_timestamp()
    RETURNING account_id, email
""")
_DROP_LINKS = text("DELETE FROM link_tokens WHERE account_id = :account AND purpose = :purpose")
_FIND_INVITATION = text("SELECT id, tenant_id FROM invitation_of(:hash)")
_RIGHTS = text("""
    SELECT DISTINCT unnest(r.permissions) FROM memberships m
    JOIN accounts a ON a.id = m.account_id AND a.status = 'active'
    JOIN membership_roles g ON g.tenant_id = m.tenant_id AND g.account_id = m.account_id
    JOIN roles r ON r.tenant_id = g.tenant_id AND r.name = g.role_name
    WHERE m.tenant_id = :tenant AND m.account_id = :account AND m.status = 'active'
""")
_KEY_SCOPES = text("""
    SELECT scopes FROM api_keys
    WHERE id = :key AND expires_at > clock_timestamp()
        AND num_nonnulls(allowed_networks, allowed_models, requests_per_minute) = 0
""")
_PERMISSIONS = text("""
    SELECT name, permissions FROM roles WHERE tenant_id = :tenant AND name = ANY(:names)
""")


class SqlJoiningUnitOfWork(SqlUserUnitOfWork):
    async def has_username(self, username: Username) -> bool:
        return await self._has(_HAS_USERNAME, username.value)

    async def has_email(self, email: EmailAddress) -> bool:
        return await self._has(_HAS_EMAIL, email.value)

    async def _has(self, statement: TextClause, value: str) -> bool:
        return (await self.session.execute(statement, {"value": value})).first() is not None

    async def ask_for_mail(
        self, kind: MailKind, recipient: EmailAddress, *, reference: UUID | None = None
    ) -> None:
        row = {"id": new_id(), "kind": kind, "recipient": recipient.value, "reference": reference}
        await self.session.execute(_ASK, row)

    async def find_link(self, token_hash: LinkHash, purpose: LinkPurpose) -> Link | None:
        found = await self.session.execute(_FIND_LINK, {"hash": token_hash, "purpose": purpose})
        row = found.first()
        if row is None:
            return None
        return Link(purpose=purpose, account_id=AccountId(row.account_id), email=row.email)

    async def spend_link(self, token_hash: LinkHash, purpose: LinkPurpose) -> Link | None:
        spent = await self.session.execute(_SPEND_LINK, {"hash": token_hash, "purpose": purpose})
        row = spent.first()
        if row is None:
            return None
        account = {"account": row.account_id, "purpose": purpose}
        await self.session.execute(_DROP_LINKS, account)
        return Link(purpose=purpose, account_id=AccountId(row.account_id), email=row.email)

    async def find_invitation(self, token_hash: LinkHash) -> Invitation | None:
        row = (await self.session.execute(_FIND_INVITATION, {"hash": token_hash})).first()
        if row is None:
            return None
        await self.act_in(TenantId(row.tenant_id))
        return await self._load_invitation(InvitationId(row.id))

    async def get_invitation(self, invitation_id: InvitationId) -> Invitation:
        invitation = await self._load_invitation(invitation_id)
        if invitation is None:
            raise InvitationNotFoundError
        return invitation

    async def _load_invitation(self, invitation_id: InvitationId) -> Invitation | None:
        statement = select(Invitation).where(invitations.c.id == invitation_id).with_for_update()
        return (await self.session.scalars(statement)).one_or_none()

    def add_invitation(self, invitation: Invitation) -> None:
        self.session.add(invitation)

    async def rights_of(self, tenant_id: TenantId, account_id: AccountId) -> frozenset[str]:
        key = {"tenant": tenant_id, "account": account_id}
        return frozenset(await self.session.scalars(_RIGHTS, key))

    async def find_key_scopes(self, api_key_id: ApiKeyId) -> Sequence[str] | None:
        found: Sequence[str] | None = await self.session.scalar(_KEY_SCOPES, {"key": api_key_id})
        return found

    async def permissions_of(
        self, tenant_id: TenantId, roles: Sequence[str]
    ) -> Mapping[str, Sequence[str]]:
        names = {"tenant": tenant_id, "names": list(roles)}
        rows = await self.session.execute(_PERMISSIONS, names)
        return {row.name: list(row.permissions) for row in rows}
