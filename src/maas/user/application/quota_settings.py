"""Quotas as administrators and holders of keys set them; what they count is `Budgets`' business."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from maas.audit.public import AuditedResource, current_scope
from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import PermissionDeniedError
from maas.shared.domain.ids import (
    AccountId,
    ApiKeyId,
    ServiceAccountId,
    TenantId,
    new_id,
)
from maas.shared.domain.principal import Principal
from maas.user.application.admin_acts import CheckVersion
from maas.user.application.quota_ports import (
    QuotaSheet,
    QuotaSubject,
    QuotaUnitOfWork,
    SubjectKind,
    version_of,
)
from maas.user.domain.quota import InvalidQuotaError, Quota, QuotaId
from maas.user.domain.tenant import MemberNotFoundError
from maas.user.public import Meter, Period

TRAIL: dict[SubjectKind, AuditedResource] = {
    kind: AuditedResource(kind, frozenset({"quotas"}))
    for kind in ("tenant", "account", "service_account", "api_key")
}
"""Limits stand in the trail of whoever they bind; there is nothing personal in them."""

_Key: TypeAlias = tuple[Meter, Period, str | None]


class OwnQuotaError(PermissionDeniedError):
    code = "own-quota"
    title = "Nobody sets their own quota"

    def __init__(self) -> None:
        super().__init__(
            "Somebody else sets what you may use, and a key does not set what any key may use."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaWish:
    """A quota to be; a cost is in nano-units of its currency."""

    meter: Meter
    period: Period
    currency: str | None
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaSettingsService:
    unit_of_work: Callable[[], QuotaUnitOfWork]
    clock: Clock

    async def replace(
        self,
        principal: Principal,
        subject: QuotaSubject,
        wishes: Sequence[QuotaWish],
        *,
        check: CheckVersion,
    ) -> QuotaSheet:
        """Have exactly these quotas bind somebody; what stays keeps what was counted.

        Raises:
            OwnQuotaError: the caller would set what binds the caller.
            InvalidQuotaError: the parts of one do not go together, or it is named twice.
            TenantNotFoundError, MemberNotFoundError, ServiceAccountNotFoundError,
            ApiKeyNotFoundError: by the subject's kind.
        """
        _check_not_own(principal, subject)
        trail, now = TRAIL[subject.kind], self.clock.now()
        async with self.unit_of_work() as uow:
            tenant_id = await _enter(uow, principal, subject)
            current_scope().resource(trail, subject.id)
            held = await uow.quotas.list_of(subject.scope, subject.id)
            check(version_of((quota.id, quota.version) for quota in held))
            before = _spell(held)
            wanted = _read(wishes, tenant_id, subject, at=now)
            kept = await _reconcile(uow, held, wanted, at=now)
            current_scope().change(
                trail, subject.id, before={"quotas": before}, after={"quotas": _spell(kept)}
            )
            sheet = QuotaSheet(await uow.quotas.list_details(subject.scope, subject.id))
            await uow.commit(sheet)
        return sheet


def _check_not_own(principal: Principal, subject: QuotaSubject) -> None:
    """Refuse whoever would loosen what binds them: the account, or any key for any key.

    Whoever has the text of one key may have that of another, and would go on with what it freed.
    """
    is_keys = subject.kind == "api_key" and principal.api_key_id is not None
    if is_keys or subject.id == principal.account_id:
        raise OwnQuotaError


async def _enter(uow: QuotaUnitOfWork, principal: Principal, subject: QuotaSubject) -> TenantId:
    """Lock whose quotas they are, and tell the tenant, in whose own trail it stands.

    With the row locked, two callers who both saw no quotas do not both make some.
    """
    match subject.kind:
        case "tenant":
            tenant_id = TenantId(subject.id)
            await uow.tenants.get(tenant_id)
            await uow.act_in(tenant_id)
            current_scope().tenant_id = tenant_id
            return tenant_id
        case "account":
            if await uow.memberships.find(AccountId(subject.id)) is None:
                raise MemberNotFoundError
        case "service_account":
            await uow.service_accounts.get(ServiceAccountId(subject.id))
        case "api_key":
            if subject.holder is None:
                message = "a key is looked for at its holder"
                raise ValueError(message)
            await uow.keys.get_held(ApiKeyId(subject.id), subject.holder)
    return principal.tenant_id


def _read(
    wishes: Sequence[QuotaWish], tenant_id: TenantId, subject: QuotaSubject, *, at: datetime
) -> dict[_Key, Quota]:
    wanted: dict[_Key, Quota] = {}
    for index, wish in enumerate(wishes):
        place = ("body", "quotas", index)
        try:
            quota = Quota(
                id=QuotaId(new_id()),
                tenant_id=tenant_id,
                scope=subject.scope,
                subject_id=subject.id,
                meter=wish.meter,
                period=wish.period,
                currency=wish.currency,
                limit_amount=wish.limit,
                created_at=at,
                updated_at=at,
            )
        except InvalidQuotaError as exc:
            raise InvalidQuotaError(exc.detail, loc=(*place, *exc.loc)) from exc
        if any(
            quota.meter == each.meter and quota.period == each.period for each in wanted.values()
        ):
            message = "Name each meter and period once: a budget has one currency."
            raise InvalidQuotaError(message, loc=place)
        wanted[_key(quota)] = quota
    return wanted


async def _reconcile(
    uow: QuotaUnitOfWork, held: Iterable[Quota], wanted: dict[_Key, Quota], *, at: datetime
) -> list[Quota]:
    """Change what is there to what is wanted.

    A quota of another currency is another quota, and counts what was used in that currency.
    """
    kept: list[Quota] = []
    for quota in held:
        wish = wanted.pop(_key(quota), None)
        if wish is None:
            await uow.quotas.remove(quota)
            continue
        if wish.limit_amount != quota.limit_amount:
            quota.set_limit(wish.limit_amount, at=at)
        kept.append(quota)
    for quota in wanted.values():
        uow.quotas.add(quota)
        kept.append(quota)
    return kept


def _key(quota: Quota) -> _Key:
    return quota.meter, quota.period, quota.currency


def _spell(quotas: Iterable[Quota]) -> list[str]:
    """Spell limits for the trail: `tokens/month 1000000`, `cost/total EUR 5000000000`."""
    return sorted(
        " ".join(
            part
            for part in (f"{each.meter}/{each.period}", each.currency, str(each.limit_amount))
            if part is not None
        )
        for each in quotas
    )
