"""The rules the trail is watched by: what each looks for, and what a tenant may set of it.

A rule finds clues in events, each about a subject; when enough clues about one subject lie in one
window, there is an alert. It is pure: `domain/watch.py` counts, and the infrastructure remembers.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import cache
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from typing_extensions import override

from maas.audit.domain.rules_clues import (
    LONE,
    UNREADABLE,
    Clue,
    Subject,
    WatchedEvent,
    grants_admin,
    is_changing,
    is_deletion,
    is_failed_login,
    share_reached,
    site_of,
)
from maas.shared.domain.errors import InvalidInputError, NotFoundError

RuleName: TypeAlias = Literal[
    "failed-login-burst",
    "many-addresses",
    "night-activity",
    "new-admin",
    "mass-deletion",
    "budget-reached",
    "unreadable-secret",
]
ParameterValue: TypeAlias = int | str | Sequence[str]

MAX_ROLES: Final = 50
MAX_ROLE_CHARS: Final = 64
_NO_PLACES: Final = frozenset({"localtime", "posixrules", "Factory"})


class RuleNotFoundError(NotFoundError):
    code = "audit-rule-not-found"
    title = "No such rule"


class InvalidRuleParameterError(InvalidInputError):
    code = "invalid-rule-parameter"
    title = "The rule does not take this"

    def __init__(self, detail: str, *, parameter: str | None = None) -> None:
        loc = ("body", "parameters") if parameter is None else ("body", "parameters", parameter)
        super().__init__(detail, loc=loc)


def bounded(default: int, least: int, most: int) -> int:
    """Declare a whole number with its bounds, both included."""
    value: int = field(default=default, metadata={"least": least, "most": most})
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(ABC):
    """What all rules have. A rule alerts when `threshold` clues lie within `window`."""

    name: ClassVar[RuleName]
    on_by_default: ClassVar[bool] = True
    description: ClassVar[str]
    is_distinct: ClassVar[bool] = False
    """Whether clues count by what they point to, each once, and not by number."""

    sees_all: ClassVar[bool] = False
    """Whether any act may be a clue: else one of an account, address and minute stands for all."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if "least" in each.metadata:
                _check_number(each.name, getattr(self, each.name), **each.metadata)

    @property
    def threshold(self) -> int:
        return 1

    @property
    def window(self) -> timedelta:
        return timedelta(0)

    def quiet_until(self, at: datetime) -> datetime:
        """Tell how long the subject of an alert raised at `at` raises no other."""
        return at + self.window

    @abstractmethod
    def clues(self, event: WatchedEvent) -> Iterator[Clue]: ...

    @property
    def parameters(self) -> dict[str, ParameterValue]:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    def revised(self, parameters: Mapping[str, object]) -> Self:
        """Set what is given, leave the rest.

        Raises:
            InvalidRuleParameterError: the rule has no such parameter, or does not take the value.
        """
        known = {each.name for each in fields(self)}
        for name in parameters:
            if name not in known:
                raise InvalidRuleParameterError(
                    f"This rule has: {', '.join(sorted(known)) or 'none'}.", parameter=None
                )
        values: dict[str, Any] = {**self.parameters, **parameters}
        return type(self)(**values)


def _check_number(name: str, value: object, *, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidRuleParameterError(
            f"`{name}` is a whole number from {least} to {most}.", parameter=name
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedLoginBurst(Rule):
    name: ClassVar[RuleName] = "failed-login-burst"
    description: ClassVar[str] = (
        "So many failed sign-ins to one account, or from one address, within so many minutes. "
        "Which tenant a stranger wanted is not known: these alerts are the default tenant's."
    )
    failures: int = bounded(5, 2, 1_000)
    minutes: int = bounded(60, 1, 1_440)

    @property
    @override
    def threshold(self) -> int:
        return self.failures

    @property
    @override
    def window(self) -> timedelta:
        return timedelta(minutes=self.minutes)

    @override
    def clues(self, event: WatchedEvent) -> Iterator[Clue]:
        if not is_failed_login(event):
            return
        if event.actor_name is not None:
            yield Clue(Subject("login", event.actor_name))
        if event.address is not None:
            yield Clue(Subject("address", site_of(event.address)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyAddresses(Rule):
    name: ClassVar[RuleName] = "many-addresses"
    description: ClassVar[str] = (
        "Acts of one account from more than so many addresses within so many hours. An IPv6 "
        "address counts by its /64."
    )
    is_distinct: ClassVar[bool] = True
    addresses: int = bounded(10, 1, 1_000)
    hours: int = bounded(24, 1, 168)

    @property
    @override
    def threshold(self) -> int:
        return self.addresses + 1

    @property
    @override
    def window(self) -> timedelta:
        return timedelta(hours=self.hours)

    @override
    def clues(self, event: WatchedEvent) -> Iterator[Clue]:
        if event.actor_id is not None and event.address is not None:
            yield Clue(Subject.account(event.actor_id), site_of(event.address))


@dataclass(frozen=True, slots=True, kw_only=True)
class NightActivity(Rule):
    name: ClassVar[RuleName] = "night-activity"
    on_by_default: ClassVar[bool] = False
    sees_all: ClassVar[bool] = True
    description: ClassVar[str] = (
        "Somebody changes something, or takes an export, at night by the clocks of `time_zone`; "
        "once a person and night. What one does to one's own account does not count."
    )
    time_zone: str = "UTC"
    since: str = "22:00"
    until: str = "06:00"

    @override
    def __post_init__(self) -> None:
        _zone(self.time_zone)
        if _time("since", self.since) == _time("until", self.until):
            raise InvalidRuleParameterError("A night begins and ends at different times.")

    @override
    def quiet_until(self, at: datetime) -> datetime:
        """Tell when the night is over, on the clocks of its own zone."""
        zone = _zone(self.time_zone)
        local, end = at.astimezone(zone), _time("until", self.until)
        day = local.date() if local.time() < end else local.date() + timedelta(days=1)
        return datetime.combine(day, end, tzinfo=zone).astimezone(UTC)

    def is_night(self, at: datetime) -> bool:
        now = at.astimezone(_zone(self.time_zone)).time()
        since, until = _time("since", self.since), _time("until", self.until)
        if since < until:
            return since <= now < until
        return now >= since or now < until

    @override
    def clues(self, event: WatchedEvent) -> Iterator[Clue]:
        if event.actor_id is not None and is_changing(event) and self.is_night(event.at):
            yield Clue(Subject.account(event.actor_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAdmin(Rule):
    name: ClassVar[RuleName] = "new-admin"
    description: ClassVar[str] = (
        "Somebody is given one of the named roles or one that allows giving or writing roles, "
        "setting alerts or running the platform, or a role comes to allow that."
    )
    roles: Sequence[str] = ("admin", "platform_admin")

    @override
    def __post_init__(self) -> None:
        if not isinstance(self.roles, list | tuple) or not 1 <= len(self.roles) <= MAX_ROLES:
            raise InvalidRuleParameterError(f"Name 1 to {MAX_ROLES} roles.", parameter="roles")
        for role in self.roles:
            if not isinstance(role, str) or not 1 <= len(role) <= MAX_ROLE_CHARS:
                raise InvalidRuleParameterError(
                    f"A role's name has 1 to {MAX_ROLE_CHARS} characters.", parameter="roles"
                )
            if not role.isascii() or not role.isprintable() or role != role.strip():
                raise InvalidRuleParameterError("That is no role's name.", parameter="roles")
        object.__setattr__(self, "roles", tuple(dict.fromkeys(self.roles)))

    @override
    def clues(self, event: WatchedEvent) -> Iterator[Clue]:
        if grants_admin(event, frozenset(self.roles)):
            yield Clue(Subject(event.resource_kind or LONE, event.resource_id, is_shown=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class MassDeletion(Rule):
    name: ClassVar[RuleName] = "mass-deletion"
    description: ClassVar[str] = (
        "More than so many deletions by one account within so many minutes."
    )
    deletions: int = bounded(20, 1, 10_000)
    minutes: int = bounded(10, 1, 1_440)

    @property
    @override
    def threshold(self) -> int:
        return self.deletions + 1

    @property
    @override
    def window(self) -> timedelta:
        return timedelta(minutes=self.minutes)

    @override
    def clues(self, event: WatchedEvent) -> Iterator[Clue]:
        if event.actor_id is not None and is_deletion(event):
            yield Clue(Subject.account(event.actor_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReached(Rule):
    name: ClassVar[RuleName] = "budget-reached"
    description: ClassVar[str] = (
        "80 or 100 percent of a quota are used up; told from `percent` on, each share once in a "
        "period, and again after a higher limit."
    )
    percent: int = bounded(80, 80, 100)

    @override
    def clues(self, event: WatchedEvent) -> Iterator[Clue]:
        share = share_reached(event)
        if share is not None and share >= self.percent:
            yield Clue(Subject(event.resource_kind or LONE, event.resource_id, is_shown=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableSecret(Rule):
    name: ClassVar[RuleName] = "unreadable-secret"
    description: ClassVar[str] = (
        "A kept secret, such as a supplier's key or a webhook's own, does not open any more: its "
        "row or the server's key was changed. Told once, until it was set anew."
    )

    @override
    def clues(self, event: WatchedEvent) -> Iterator[Clue]:
        if event.action == UNREADABLE:
            yield Clue(Subject(event.resource_kind or LONE, event.resource_id, is_shown=True))


RULES: Final[Mapping[RuleName, type[Rule]]] = {
    rule.name: rule
    for rule in (
        FailedLoginBurst,
        ManyAddresses,
        NightActivity,
        NewAdmin,
        MassDeletion,
        BudgetReached,
        UnreadableSecret,
    )
}


def rule_type(name: str) -> type[Rule]:
    """Find a rule by its name.

    Raises:
        RuleNotFoundError: there is none.
    """
    for known, rule in RULES.items():
        if known == name:
            return rule
    raise RuleNotFoundError


def _zone(name: object) -> tzinfo:
    if name == "UTC":
        # Known also where no database of zones is installed.
        return UTC
    refusal = InvalidRuleParameterError(
        "Name a zone of the IANA database, as in Asia/Shanghai.", parameter="time_zone"
    )
    if not isinstance(name, str) or name not in _zones():
        raise refusal
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise refusal from None


@cache
def _zones() -> frozenset[str]:
    """List the zones that are named by place: what is this machine's own is not one of them."""
    return frozenset(available_timezones()) - _NO_PLACES


def _time(parameter: str, text: object) -> time:
    try:
        if isinstance(text, str) and len(text) == len("22:00"):
            return datetime.strptime(text, "%H:%M").replace(tzinfo=UTC).time()
    except ValueError:
        pass
    raise InvalidRuleParameterError("Write a time as 22:00.", parameter=parameter)
