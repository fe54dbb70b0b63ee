"""API keys: made, bound, rolled over and revoked, by their holder or for a service account."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from typing_extensions import TypedDict, Unpack

from maas.audit.public import AuditedResource, ChangeValue, current_scope
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import AccountId, ApiKeyId, ServiceAccountId, new_id
from maas.shared.domain.principal import Principal
from maas.user.application.admin_acts import CheckVersion, granter_of
from maas.user.application.admin_ports import KeyMark, SessionEffects, SessionMarks
from maas.user.application.key_ports import ApiKeyDetails, IssuedKey, KeyUnitOfWork
from maas.user.domain.api_key import (
    DEFAULT_LIFETIME,
    MAX_KEYS,
    ApiKey,
    Holder,
    LimitedKeyError,
    Network,
    ScopesBeyondHolderError,
    TooManyKeysError,
    check_expiry,
    spell_models,
    spell_networks,
)
from maas.user.domain.grants import includes
from maas.user.domain.key_text import make_key
from maas.user.domain.role import PermissionPattern, spell_permissions

API_KEY = AuditedResource(
    "api_key",
    frozenset(
        {"scopes", "expires_at", "requests_per_minute", "is_network_bound", "is_model_bound"}
    ),
)
"""What a key is bound to is its holder's own text, so only that it is."""


class KeyChanges(TypedDict, total=False):
    """What may be changed of a key; what is absent stays."""

    name: str
    scopes: Collection[PermissionPattern]
    expires_at: datetime
    allowed_networks: Collection[Network] | None
    allowed_models: Collection[str] | None
    requests_per_minute: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyWish:
    """A key to be; without an expiry it gets the usual lifetime."""

    name: str
    scopes: Collection[PermissionPattern]
    expires_at: datetime | None
    allowed_networks: Collection[Network] | None
    allowed_models: Collection[str] | None
    requests_per_minute: int | None


def holder_of(principal: Principal) -> Holder:
    """Whose keys are one's own: a person's, or those of the service account that calls."""
    if principal.kind == "service_account":
        return Holder(service_account_id=ServiceAccountId(principal.account_id))
    return Holder(account_id=principal.account_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyService:
    """`choose` picks one of the given letters by chance; `mark` names the environment in keys."""

    unit_of_work: Callable[[], KeyUnitOfWork]
    marks: SessionMarks
    clock: Clock
    choose: Callable[[str], str]
    mark: str

    async def create(self, principal: Principal, holder: Holder, wish: KeyWish) -> IssuedKey:
        """Make a key; its text is told this once.

        Raises:
            BeyondOwnRightsError, ScopesBeyondHolderError, LimitedKeyError, InvalidExpiryError,
            TooManyKeysError, ServiceAccountNotFoundError.
        """
        now, scopes = self.clock.now(), spell_permissions(wish.scopes)
        expires_at = wish.expires_at or now + DEFAULT_LIFETIME
        check_expiry(expires_at, at=now)
        _refuse_limited(principal)
        granter_of(principal).check_within(scopes)
        made = make_key(self.mark, self.choose)
        key = ApiKey(
            id=ApiKeyId(new_id()),
            tenant_id=principal.tenant_id,
            account_id=holder.account_id,
            service_account_id=holder.service_account_id,
            public_id=made.public_id,
            prefix=made.prefix,
            name=wish.name,
            scopes=scopes,
            allowed_networks=spell_networks(wish.allowed_networks),
            allowed_models=spell_models(wish.allowed_models),
            requests_per_minute=wish.requests_per_minute,
            secret_hash=made.secret_hash,
            is_secret_used=False,
            previous_hash=None,
            previous_valid_until=None,
            rotated_at=None,
            expires_at=expires_at,
            last_used_at=None,
            created_by=AccountId(principal.account_id),
            created_at=now,
            updated_at=now,
        )
        async with self.unit_of_work() as uow:
            await _check_holder(uow, holder, scopes)
            if await uow.keys.count_held(holder) >= MAX_KEYS:
                raise TooManyKeysError
            uow.keys.add(key)
            current_scope().change(API_KEY, key.id, after=_trail(key))
            issued = IssuedKey(details=ApiKeyDetails.of(key), holder=holder, key=made.text)
            await uow.commit(issued)
        return issued

    async def revise(
        self,
        principal: Principal,
        holder: Holder,
        key_id: ApiKeyId,
        *,
        check: CheckVersion,
        **changes: Unpack[KeyChanges],
    ) -> ApiKeyDetails:
        """Change what a key may do, from the next request on.

        Raises:
            ApiKeyNotFoundError, BeyondOwnRightsError, ScopesBeyondHolderError, LimitedKeyError,
            InvalidExpiryError.
        """
        now = self.clock.now()
        _refuse_limited(principal)
        async with self.unit_of_work() as uow:
            key = await uow.keys.get_held(key_id, holder)
            current_scope().resource(API_KEY, key_id)
            check(key.version)
            before, had = _trail(key), frozenset(key.scopes)
            if "scopes" in changes:
                key.allow(changes["scopes"], at=now)
            # What stays as it is needs no rights, unless it is another one's key.
            added = frozenset(key.scopes) - had
            _check_reach(principal, holder, scopes=had, added=added)
            await _check_holder(uow, holder, added)
            if "name" in changes:
                key.rename(changes["name"], at=now)
            if "expires_at" in changes:
                key.expire_at(changes["expires_at"], at=now)
            _bind(key, changes, at=now)
            current_scope().change(API_KEY, key_id, before=before, after=_trail(key))
            await uow.commit()
        await self._announce(key)
        return ApiKeyDetails.of(key)

    async def rotate(
        self,
        principal: Principal,
        holder: Holder,
        key_id: ApiKeyId,
        *,
        grace: timedelta,
        check: CheckVersion,
    ) -> IssuedKey:
        """Give a key a new secret; the one before is good for the grace.

        Raises:
            ApiKeyNotFoundError, RotationUnderWayError, BeyondOwnRightsError, LimitedKeyError.
        """
        now = self.clock.now()
        if key_id != principal.api_key_id:
            _refuse_limited(principal)
        async with self.unit_of_work() as uow:
            key = await uow.keys.get_held(key_id, holder)
            current_scope().resource(API_KEY, key_id)
            check(key.version)
            _check_reach(principal, holder, scopes=frozenset(key.scopes), added=frozenset())
            made = make_key(self.mark, self.choose, public_id=key.public_id)
            key.rotate(made, grace=grace, at=now)
            key.prefix = made.prefix
            issued = IssuedKey(details=ApiKeyDetails.of(key), holder=holder, key=made.text)
            await uow.commit(issued)
        await self._announce(key)
        return issued

    async def revoke(self, holder: Holder, key_id: ApiKeyId, *, check: CheckVersion) -> None:
        """Delete a key; no request with it that starts after this returns is accepted.

        Raises:
            ApiKeyNotFoundError.
        """
        async with self.unit_of_work() as uow:
            key = await uow.keys.get_held(key_id, holder)
            current_scope().resource(API_KEY, key_id)
            check(key.version)
            key.auth_version += 1
            current_scope().change(API_KEY, key_id, before=_trail(key))
            await uow.keys.remove(key)
            await uow.commit()
        await self._announce(key)

    async def _announce(self, key: ApiKey) -> None:
        mark = KeyMark(key.public_id, key.auth_version)
        await self.marks.announce(SessionEffects(stale_keys=[mark]))


def _refuse_limited(principal: Principal) -> None:
    if principal.key_limits is not None:
        raise LimitedKeyError


def _check_reach(
    principal: Principal, holder: Holder, *, scopes: frozenset[str], added: frozenset[str]
) -> None:
    """Refuse to hand out more than the caller may do: whoever changes a key could use it.

    Raises:
        BeyondOwnRightsError.
    """
    is_own = principal.api_key_id is None and holder == holder_of(principal)
    granter_of(principal).check_within(added if is_own else scopes | added)


async def _check_holder(uow: KeyUnitOfWork, holder: Holder, scopes: Collection[str]) -> None:
    """Lock a service account, and refuse scopes that its roles do not give it.

    Raises:
        ServiceAccountNotFoundError, ScopesBeyondHolderError.
    """
    if holder.service_account_id is None:
        return
    account = await uow.service_accounts.get(holder.service_account_id)
    roles = await uow.roles.list_named(account.role_names)
    rights = [right for role in roles for right in role.permissions]
    if not all(includes(rights, scope) for scope in scopes):
        raise ScopesBeyondHolderError


def _bind(key: ApiKey, changes: KeyChanges, *, at: datetime) -> None:
    if changes.keys() & {"allowed_networks", "allowed_models", "requests_per_minute"}:
        networks = [Network(each) for each in key.allowed_networks or ()]
        key.bind(
            networks=changes.get(
                "allowed_networks", None if key.allowed_networks is None else networks
            ),
            models=changes.get("allowed_models", key.allowed_models),
            requests_per_minute=changes.get("requests_per_minute", key.requests_per_minute),
            at=at,
        )


def _trail(key: ApiKey) -> dict[str, ChangeValue]:
    return {
        "scopes": tuple(key.scopes),
        "expires_at": key.expires_at.isoformat(),
        "requests_per_minute": key.requests_per_minute,
        "is_network_bound": key.allowed_networks is not None,
        "is_model_bound": key.allowed_models is not None,
    }
