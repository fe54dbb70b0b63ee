"""Nothing is granted beyond the granter: every (granter, role, target) there is."""

from itertools import chain, combinations, product

import pytest

from maas.shared.domain.ids import AccountId, new_id
from maas.shared.domain.principal import covers
from maas.user.domain.grants import (
    BeyondOwnRightsError,
    Granter,
    LastAdminError,
    OwnRolesError,
    check_remaining,
    guarded_loss,
    includes,
)
from maas.user.domain.role import ProtectedRoleError, Role
from maas.user.public import (
    BUILT_IN_ROLES,
    PLATFORM_ADMIN_PERMISSIONS,
    PLATFORM_ADMIN_ROLE,
    SELF_PERMISSIONS,
)
from tests.factories.accounts import make_role

RESOURCES = ("model", "user", "platform", "anything")
ACTIONS = ("read", "write", "anything")
CONCRETE = [f"{resource}:{action}" for resource, action in product(RESOURCES, ACTIONS)]
PATTERNS = [
    f"{resource}:{action}" for resource, action in product((*RESOURCES, "*"), (*ACTIONS, "*"))
]
ROLES = {**BUILT_IN_ROLES, PLATFORM_ADMIN_ROLE: PLATFORM_ADMIN_PERMISSIONS}
OWN, OTHER = AccountId(new_id()), AccountId(new_id())


def granter_of(*names: str) -> Granter:
    rights = frozenset(chain.from_iterable(ROLES[name] for name in names))
    return Granter(account_id=OWN, rights=rights | SELF_PERMISSIONS)


def role_of(name: str) -> Role:
    return make_role(name=name, permissions=ROLES[name], is_protected=True)


def allowed(rights: frozenset[str]) -> set[str]:
    """Every permission that a check on a route would let through, as far as the samples go."""
    samples = {*CONCRETE, *(p for r in ROLES.values() for p in r if "*" not in p)}
    samples |= {f"{resource}:anything" for resource in ("audit", "deployment", "inference")}
    return {each for each in samples if covers(rights, each)}


def may(act: object, *args: object, **kwargs: object) -> bool:
    try:
        act(*args, **kwargs)  # type: ignore[operator]  # one of the checks
    except (BeyondOwnRightsError, OwnRolesError):
        return False
    return True


class TestIncludes:
    @pytest.mark.parametrize("grant", PATTERNS)
    def test_says_for_every_pair_what_the_routes_would(self, grant: str) -> None:
        granted = frozenset({grant})

        for pattern in PATTERNS:
            reached = {each for each in CONCRETE if covers(frozenset({pattern}), each)}
            is_wider = reached > {each for each in CONCRETE if covers(granted, each)}
            says = includes(granted, pattern)
            assert not (says and not all(covers(granted, each) for each in reached))
            assert not (says and is_wider)
            # A wildcard stands for names nobody has thought of yet: only a wildcard covers it.
            resource, _, action = pattern.partition(":")
            if says and resource == "*":
                assert grant.startswith("*:")
            if says and action == "*":
                assert grant.endswith(":*")

    @pytest.mark.parametrize("pattern", PATTERNS)
    def test_a_pattern_includes_itself(self, pattern: str) -> None:
        assert includes({pattern}, pattern)

    @pytest.mark.parametrize("pattern", [p for p in PATTERNS if p.startswith("platform:")])
    def test_no_tenant_wildcard_reaches_the_platform(self, pattern: str) -> None:
        assert not includes({"*:*", "*:read", "*:write", "model:*"}, pattern)

    def test_the_platform_reaches_no_tenant(self) -> None:
        assert not includes({"platform:*"}, "*:*")
        assert not includes({"platform:*"}, "model:read")


HOLDERS = [*((name,) for name in ROLES), *combinations(ROLES, 2)]


class TestEveryTriple:
    @pytest.mark.parametrize("names", HOLDERS, ids="+".join)
    def test_a_role_is_given_only_by_who_holds_as_much(self, names: tuple[str, ...]) -> None:
        granter = granter_of(*names)

        for role, target in product(ROLES, (OWN, OTHER)):
            after = [role_of(role)]
            given = may(granter.check_assign, target, before=[], after=after)
            holds_as_much = all(includes(granter.rights, right) for right in ROLES[role])
            assert given == (target is OTHER and holds_as_much), (names, role)
            if given:
                assert allowed(ROLES[role]) <= allowed(granter.rights)

    @pytest.mark.parametrize("names", HOLDERS, ids="+".join)
    def test_a_role_is_taken_only_by_who_holds_as_much(self, names: tuple[str, ...]) -> None:
        granter = granter_of(*names)

        for role, target in product(ROLES, (OWN, OTHER)):
            taken = may(granter.check_assign, target, before=[role_of(role)], after=[])
            assert taken == (
                target is OTHER and all(includes(granter.rights, right) for right in ROLES[role])
            )

    @pytest.mark.parametrize("names", HOLDERS, ids="+".join)
    def test_nobody_acts_on_who_may_do_more(self, names: tuple[str, ...]) -> None:
        granter = granter_of(*names)

        for role, target in product(ROLES, (OWN, OTHER)):
            acts = may(granter.check_act_on, target, rights=ROLES[role])
            if acts:
                assert target is OTHER
                assert allowed(ROLES[role]) <= allowed(granter.rights)

    @pytest.mark.parametrize("names", HOLDERS, ids="+".join)
    def test_no_role_is_made_beyond_its_maker(self, names: tuple[str, ...]) -> None:
        granter = granter_of(*names)

        for pattern in PATTERNS:
            if may(granter.check_define, [pattern]):
                assert allowed(frozenset({pattern})) <= allowed(granter.rights)

    def test_a_tenant_admin_gives_every_tenant_role_and_never_the_platforms(self) -> None:
        admin = granter_of("admin")

        for name in BUILT_IN_ROLES:
            assert may(admin.check_assign, OTHER, before=[], after=[role_of(name)])
        assert not may(admin.check_assign, OTHER, before=[], after=[role_of(PLATFORM_ADMIN_ROLE)])
        assert not may(admin.check_assign, OTHER, before=[role_of(PLATFORM_ADMIN_ROLE)], after=[])

    @pytest.mark.parametrize("name", ROLES)
    def test_a_built_in_role_is_changed_by_nobody(self, name: str) -> None:
        everything = Granter(account_id=OWN, rights=frozenset({"*:*", "platform:*"}))

        with pytest.raises(ProtectedRoleError):
            everything.check_redefine(role_of(name), permissions=[], is_own=False)


class TestRedefine:
    def test_a_role_above_own_rights_is_not_even_cut_down(self) -> None:
        role = make_role(name="ops", permissions={"user:write", "model:read"})
        granter = Granter(account_id=OWN, rights=frozenset({"model:*", "role:write"}))

        with pytest.raises(BeyondOwnRightsError):
            granter.check_redefine(role, permissions=["model:read"], is_own=False)

    def test_a_role_one_holds_is_not_changed(self) -> None:
        role = make_role(name="ops", permissions={"role:write"})
        granter = Granter(account_id=OWN, rights=frozenset({"role:write"}))

        with pytest.raises(OwnRolesError):
            granter.check_redefine(role, permissions=["role:write"], is_own=True)


class TestPrograms:
    program = Granter(account_id=OWN, rights=frozenset({"*:*", "platform:*"}), is_program=True)
    person = Granter(account_id=OWN, rights=frozenset({"*:*", "platform:*"}))

    @pytest.mark.parametrize(
        "right",
        [
            "role:write",
            "role:grant",
            "user:*",
            "user:delete",
            "service_account:write",
            "platform:account-write",
            "platform:*",
            "*:write",
            "*:*",
        ],
    )
    def test_hand_on_no_right_to_manage_access(self, right: str) -> None:
        wider = make_role(name="twin", permissions={"model:read", right})
        narrow = make_role(name="reader", permissions={"model:read"})
        both = wider.permissions

        for granter in (self.program, self.person):
            is_person = granter is self.person
            assert may(granter.check_assign, OTHER, before=[], after=[wider]) == is_person
            added = may(granter.check_redefine, narrow, permissions=both, is_own=False)
            assert added == is_person
            assert may(granter.check_assign, OTHER, before=[wider], after=[narrow]), "taking it"
            assert may(granter.check_redefine, wider, permissions=both, is_own=False), "as it is"

    @pytest.mark.parametrize(
        "right", ["user:read", "role:read", "*:read", "model:*", "quota:write"]
    )
    def test_hand_on_what_manages_nobody(self, right: str) -> None:
        role = make_role(name="reader", permissions={right})

        assert may(self.program.check_assign, OTHER, before=[], after=[role])


class TestLastAdmin:
    @pytest.mark.parametrize(
        ("before", "after", "others", "refused"),
        [
            ({"admin"}, set(), {"admin": 0}, True),
            ({"admin"}, set(), {}, True),
            ({"admin"}, set(), {"admin": 1}, False),
            ({"admin"}, {"admin", "user"}, {"admin": 0}, False),
            ({"user"}, set(), {"admin": 0}, False),
            ({"admin", PLATFORM_ADMIN_ROLE}, set(), {"admin": 3}, True),
            ({"admin", PLATFORM_ADMIN_ROLE}, {"admin"}, {"admin": 0}, True),
            ({PLATFORM_ADMIN_ROLE}, set(), {PLATFORM_ADMIN_ROLE: 1}, False),
        ],
    )
    def test_the_last_active_holder_stays(
        self, before: set[str], after: set[str], others: dict[str, int], *, refused: bool
    ) -> None:
        lost = guarded_loss(before, after)

        if refused:
            with pytest.raises(LastAdminError):
                check_remaining(lost, others)
        else:
            check_remaining(lost, others)
