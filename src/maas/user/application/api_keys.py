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
from maas.user.application.admin_ports import SessionEffects, SessionMarks
from maas.user.application.key_ports import ApiKeyDetails, Caller, IssuedKey, KeyUnitOfWork
from maas.user.application.ports import KeyMark
from maas.user.domain.api_key import (
    DEFAULT_LIFETIME,
    MAX_KEYS,
    ApiKey,
    Holder,
    Network,
    OutlivesCallerError,
    ScopesBeyondHolderError,
    SupersededKeyError,
    TooManyKeysError,
    check_expiry,
    spell_models,
    spell_networks,
)
from maas.user.domain.grants import LimitedKeyError, includes
from maas.user.domain.key_text import NewKey, make_key
from maas.user.domain.role import PermissionPattern, spell_permissions
from maas.user.domain.service_account import ServiceAccount

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
            BeyondOwnRightsError, ScopesBeyondHolderError, LimitedKeyError, SupersededKeyError,
            InvalidExpiryError, OutlivesCallerError, TooManyKeysError, ServiceAccountNotFoundError.
        """
        scopes = spell_permissions(wish.scopes)
        granter = granter_of(principal)
        granter.check_unlimited()
        granter.check_within(scopes)
        async with self.unit_of_work() as uow:
            entered = await _enter(uow, principal, holder)
            _check_unbound(entered.caller)
            await _check_holder(uow, entered, scopes)
            if await uow.keys.count_held(holder) >= MAX_KEYS:
                raise TooManyKeysError
            made = make_key(self.mark, self.choose)
            key = self._make(principal, holder, wish, made, ends_by=entered.caller.ends_by)
            uow.keys.add(key)
            current_scope().change(API_KEY, key.id, after=_trail(key))
            issued = IssuedKey(details=ApiKeyDetails.of(key), holder=holder, key=made.text)
            await uow.commit(issued)
        await self.marks.announce(SessionEffects(new_keys=[_mark_of(key)]))
        return issued

    def _make(
        self,
        principal: Principal,
        holder: Holder,
        wish: KeyWish,
        made: NewKey,
        *,
        ends_by: datetime | None,
    ) -> ApiKey:
        now = self.clock.now()
        usual = now + DEFAULT_LIFETIME
        expires_at = wish.expires_at or (usual if ends_by is None else min(usual, ends_by))
        check_expiry(expires_at, at=now)
        _check_end(expires_at, ends_by)
        return ApiKey(
            id=ApiKeyId(new_id()),
            tenant_id=principal.tenant_id,
            account_id=holder.account_id,
            service_account_id=holder.service_account_id,
            public_id=made.public_id,
            prefix=made.prefix,
            name=wish.name,
            scopes=spell_permissions(wish.scopes),
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
            created_by_key=principal.api_key_id,
            created_at=now,
            updated_at=now,
        )

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
            SupersededKeyError, InvalidExpiryError, OutlivesCallerError.
        """
        now = self.clock.now()
        granter_of(principal).check_unlimited()
        async with self.unit_of_work() as uow:
            entered = await _enter(uow, principal, holder)
            _check_unbound(entered.caller)
            key = await uow.keys.get_held(key_id, holder)
            current_scope().resource(API_KEY, key_id)
            check(key.version)
            before, had = _trail(key), frozenset(key.scopes)
            if "scopes" in changes:
                key.allow(changes["scopes"], at=now)
            # What stays as it is needs no rights, unless it is another one's key.
            added = frozenset(key.scopes) - had
            _check_reach(principal, holder, scopes=had, added=added)
            await _check_holder(uow, entered, added)
            if "name" in changes:
                key.rename(changes["name"], at=now)
            if "expires_at" in changes:
                if changes["expires_at"] > key.expires_at:
                    _check_end(changes["expires_at"], entered.caller.ends_by)
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
            ApiKeyNotFoundError, RotationUnderWayError, BeyondOwnRightsError, LimitedKeyError,
            SupersededKeyError.
        """
        now = self.clock.now()
        async with self.unit_of_work() as uow:
            entered = await _enter(uow, principal, holder)
            key = await uow.keys.get_held(key_id, holder)
            current_scope().resource(API_KEY, key_id)
            check(key.version)
            _check_taken(principal, holder, key)
            if key.id != principal.api_key_id:
                _check_unbound(entered.caller)
            made = make_key(self.mark, self.choose, public_id=key.public_id)
            key.rotate(made, grace=grace, at=now)
            key.prefix = made.prefix
            issued = IssuedKey(details=ApiKeyDetails.of(key), holder=holder, key=made.text)
            await uow.commit(issued)
        await self._announce(key)
        return issued

    async def revoke(
        self, principal: Principal, holder: Holder, key_id: ApiKeyId, *, check: CheckVersion
    ) -> None:
        """Delete a key; no request with it that starts after this returns is accepted.

        Raises:
            ApiKeyNotFoundError, BeyondOwnRightsError, LimitedKeyError, SupersededKeyError.
        """
        async with self.unit_of_work() as uow:
            await _enter(uow, principal, holder)
            key = await uow.keys.get_held(key_id, holder)
            current_scope().resource(API_KEY, key_id)
            check(key.version)
            _check_taken(principal, holder, key)
            key.auth_version += 1
            current_scope().change(API_KEY, key_id, before=_trail(key))
            await uow.keys.remove(key)
            await uow.commit()
        await self._announce(key)

    async def _announce(self, key: ApiKey) -> None:
        await self.marks.announce(SessionEffects(stale_keys=[_mark_of(key)]))


def _mark_of(key: ApiKey) -> KeyMark:
    return KeyMark(key.public_id, key.auth_version)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entered:
    """A holder, locked: the service account, if it is one; and what binds the caller."""

    service: ServiceAccount | None
    caller: Caller


async def _enter(uow: KeyUnitOfWork, principal: Principal, holder: Holder) -> _Entered:
    """Begin an act on a holder's keys.

    An answer that is given again is given before this: also to a secret that was replaced since.

    Raises:
        SupersededKeyError, ServiceAccountNotFoundError, InvalidApiKeyError, InvalidTokenError.
    """
    if principal.is_superseded:
        raise SupersededKeyError
    service = await uow.lock_holder(holder)
    return _Entered(service=service, caller=await uow.find_caller(principal))


def _check_unbound(caller: Caller) -> None:
    """Refuse a key with quotas the text of any other: it would go on with that one, unbound.

    Raises:
        LimitedKeyError.
    """
    if caller.has_quotas:
        raise LimitedKeyError


def _check_end(moment: datetime, ends_by: datetime | None) -> None:
    if ends_by is not None and moment > ends_by:
        raise OutlivesCallerError


def _check_taken(principal: Principal, holder: Holder, key: ApiKey) -> None:
    """Refuse to replace or end a key that may more than the caller, unless it is the caller.

    Raises:
        BeyondOwnRightsError, LimitedKeyError.
    """
    if key.id != principal.api_key_id:
        _check_reach(principal, holder, scopes=frozenset(key.scopes), added=frozenset())


def _check_reach(
    principal: Principal, holder: Holder, *, scopes: frozenset[str], added: frozenset[str]
) -> None:
    """Refuse to hand out more than the caller may do: whoever changes a key could use it.

    Raises:
        BeyondOwnRightsError.
    """
    is_own = principal.api_key_id is None and holder == holder_of(principal)
    granter_of(principal).check_within(added if is_own else scopes | added)


async def _check_holder(uow: KeyUnitOfWork, entered: _Entered, scopes: Collection[str]) -> None:
    """Refuse scopes that a service account's roles do not give it.

    Raises:
        ScopesBeyondHolderError.
    """
    if entered.service is None or not scopes:
        return
    roles = await uow.roles.list_named(entered.service.role_names)
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
