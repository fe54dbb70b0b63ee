"""Who may give what to whom: the rules that span the granter, the role and the person."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from maas.shared.domain.errors import PermissionDeniedError, RuleViolatedError
from maas.shared.domain.ids import AccountId
from maas.shared.domain.principal import PLATFORM_NAMESPACE
from maas.user.domain.role import GUARDED_ROLES, ProtectedRoleError, Role, RoleName

ANY = "*"

_MANAGES_ACCESS = frozenset({ANY, PLATFORM_NAMESPACE, "role", "service_account", "user"})


class OwnRolesError(PermissionDeniedError):
    code = "own-roles"
    title = "Nobody changes their own access"

    def __init__(
        self, detail: str = "Ask another administrator to change your own roles or membership."
    ) -> None:
        super().__init__(detail)


class BeyondOwnRightsError(PermissionDeniedError):
    code = "beyond-own-rights"
    title = "This takes more rights than you hold"

    def __init__(
        self,
        detail: str = "You can only give, change or take what lies within your own permissions.",
    ) -> None:
        super().__init__(detail)


class LimitedKeyError(BeyondOwnRightsError):
    code = "limited-key"
    title = "A limited key passes on no rights"

    def __init__(self) -> None:
        super().__init__(
            "This key is bound to networks, models, a rate or a quota, and whoever received rights "
            "from it would not be: use a session, or a key without such bounds."
        )


class LastAdminError(RuleViolatedError):
    code = "last-admin"
    title = "Somebody must remain"

    def __init__(self) -> None:
        super().__init__(
            "This is the last active administrator: make another person one before this."
        )


def includes(granted: Collection[str], pattern: str) -> bool:
    """Tell whether everything a pattern allows is allowed by one of the granted patterns.

    A wildcard resource never reaches the platform namespace, on either side.
    """
    resource, _, action = pattern.partition(":")
    for grant in granted:
        own_resource, _, own_action = grant.partition(":")
        reaches = own_resource == resource or (
            own_resource == ANY and resource != PLATFORM_NAMESPACE
        )
        if reaches and own_action in {ANY, action}:
            return True
    return False


def manages_access(right: str) -> bool:
    """Tell whether somebody with this right could give others rights, or take them over."""
    resource, _, action = right.partition(":")
    return resource in _MANAGES_ACCESS and action != "read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Granter:
    """Whoever changes access: who it is, and what of theirs they may pass on.

    One who `is_limited` passes on nothing at all, and one who `is_program` neither a role of its
    own nor one that manages access: whoever got it could go on when the program is stopped.
    """

    account_id: AccountId
    rights: frozenset[str]
    is_limited: bool = False
    is_program: bool = False

    def check_unlimited(self) -> None:
        """Refuse a caller whose own bounds would not bind whoever receives something.

        Raises:
            LimitedKeyError.
        """
        if self.is_limited:
            raise LimitedKeyError

    def check_within(self, rights: Iterable[str]) -> None:
        """Refuse whatever lies beyond the granter's own rights.

        Raises:
            BeyondOwnRightsError, LimitedKeyError.
        """
        if all(includes(self.rights, right) for right in rights):
            return
        self.check_unlimited()
        raise BeyondOwnRightsError

    def check_act_on(self, target: AccountId, *, rights: Iterable[str]) -> None:
        """Refuse to act on oneself, or on somebody who may do more.

        Raises:
            OwnRolesError, BeyondOwnRightsError.
        """
        if target == self.account_id:
            raise OwnRolesError
        self.check_within(rights)

    def check_assign(
        self,
        target: AccountId,
        *,
        before: Collection[Role],
        after: Collection[Role],
        own: Collection[RoleName] = (),
    ) -> None:
        """Refuse to give or to take a role that allows more than the granter may do.

        `own` are the roles of a program, which gives none of them.

        Raises:
            OwnRolesError, BeyondOwnRightsError, LimitedKeyError.
        """
        self.check_unlimited()
        held = [right for role in (*before, *after) for right in role.permissions]
        self.check_act_on(target, rights=held)
        if any(role.name in own for role in after):
            raise OwnRolesError("A program neither changes nor gives a role that it holds itself.")
        self._check_spread(right for role in after for right in role.permissions)

    def check_define(self, permissions: Iterable[str]) -> None:
        """Refuse to make a role that allows more than its maker may do.

        Raises:
            BeyondOwnRightsError.
        """
        self.check_within(permissions)

    def check_redefine(self, role: Role, *, permissions: Iterable[str], is_own: bool) -> None:
        """Refuse to change a role that is built in, above the granter, or the granter's own.

        Raises:
            ProtectedRoleError, OwnRolesError, BeyondOwnRightsError.
        """
        if role.is_protected:
            raise ProtectedRoleError
        if is_own:
            raise OwnRolesError
        self.check_within((*role.permissions, *permissions))
        # Whoever holds it already would be given what is added.
        self._check_spread(right for right in permissions if right not in role.permissions)

    def _check_spread(self, rights: Iterable[str]) -> None:
        if self.is_program and any(manages_access(right) for right in rights):
            raise OwnRolesError(
                "A program gives nobody rights to manage roles, people, service accounts or the "
                "platform."
            )


def guarded_loss(before: Collection[str], after: Collection[str]) -> frozenset[str]:
    """Name the roles a person would lose of which the last active holder must stay."""
    return GUARDED_ROLES & set(before) - set(after)


def check_remaining(lost: Collection[str], others: Mapping[str, int]) -> None:
    """Refuse to take a guarded role's last active holder.

    `others` counts the active holders beside the person at hand.

    Raises:
        LastAdminError.
    """
    if any(others.get(role, 0) == 0 for role in lost):
        raise LastAdminError
