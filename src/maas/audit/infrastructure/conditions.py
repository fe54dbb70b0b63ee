"""What is asked of the log, as conditions in SQL; values never enter the text."""

from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from maas.audit.application.queries import EventFilter, Order
from maas.audit.infrastructure.words import Words
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Position

_LAST_CHARACTER: Final = "\U0010ffff"

TEXT_COLUMNS: Final = {
    "action": "l.action",
    "reason": "l.reason",
    "name": "p.actor_name",
    "email": "p.email",
}
"""Where a text is looked for."""

COMES_AFTER: Final[dict[Order, str]] = {"newest": "<", "oldest": ">"}
DIRECTIONS: Final[dict[Order, str]] = {"newest": "DESC", "oldest": "ASC"}


@dataclass(slots=True)
class Arguments:
    """The values of one statement, in the order of their numbers."""

    values: list[object] = field(default_factory=list)

    def put(self, text: str, *values: object) -> str:
        """Put numbers in the place of the braces."""
        first = len(self.values) + 1
        self.values.extend(values)
        return text.format(*(f"${first + index}" for index in range(len(values))))


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time, `until` not in it, and where the page before ended."""

    since: datetime | None = None
    until: datetime | None = None
    after: Position | None = None


def within(alias: str, stretch: Stretch, order: Order, arguments: Arguments) -> list[str]:
    """Keep to a stretch; the log and the personal fields have the same columns for it."""
    texts = []
    if stretch.since is not None:
        texts.append(arguments.put(f"{alias}.occurred_at >= {{}}", stretch.since))
    if stretch.until is not None:
        texts.append(arguments.put(f"{alias}.occurred_at < {{}}", stretch.until))
    if stretch.after is not None:
        comes_after = f"({alias}.occurred_at, {alias}.event_id) {COMES_AFTER[order]} ({{}}, {{}})"
        texts.append(arguments.put(comes_after, stretch.after.at, stretch.after.id))
    return texts


def in_columns(tenant_id: TenantId, wanted: EventFilter, arguments: Arguments) -> list[str]:
    """Ask for what the log's own columns tell: all but time, address and text."""
    texts = [arguments.put("l.tenant_id = {}", tenant_id)]
    for column in ("actor_id", "resource_id", "request_id", "session_id", "api_key_id"):
        value = getattr(wanted, column)
        if value is not None:
            texts.append(arguments.put(f"l.{column} = {{}}", value))
    if wanted.resource_kind is not None:
        # Alone it must not lead to the index of single things, which has them in another order.
        has = "l.resource_kind = {}" if wanted.resource_id else "(l.resource_kind = {}) IS TRUE"
        texts.append(arguments.put(has, wanted.resource_kind))
    if wanted.outcome is not None:
        # In the text, one of three words: only so does the partial index of failures serve.
        texts.append(f"l.outcome = '{wanted.outcome}'")
    if wanted.action is not None:
        prefix = wanted.action.removesuffix("*")
        if prefix == wanted.action:
            texts.append(arguments.put("l.action = {}", prefix))
        elif prefix:
            condition = "l.action >= {} AND l.action < {}"
            texts.append(arguments.put(condition, prefix, prefix + _LAST_CHARACTER))
    return texts


def in_stretch(
    tenant_id: TenantId,
    wanted: EventFilter,
    stretch: Stretch,
    order: Order,
    *,
    words: Words,
    arguments: Arguments,
) -> list[str]:
    """Ask for everything that is wanted; an event has it that fits one of the answers."""
    common = [
        *in_columns(tenant_id, wanted, arguments),
        *within("l", stretch, order, arguments),
    ]
    if wanted.resource_kind is not None and words.actions is not None:
        common.append(arguments.put("l.action = ANY ({}::text[])", words.actions))
    if words.kinds is not None:
        common.append(arguments.put("l.resource_kind = ANY ({}::text[])", words.kinds))
    if wanted.address is not None:
        has = _has_address(wanted.address, words, arguments)
        common.append(_with_personal(tenant_id, has, stretch, arguments))
    return [
        " AND ".join([*common, *texts])
        for texts in _with_text(tenant_id, words, stretch, arguments)
    ]


def _has_address(network: IPv4Network | IPv6Network, words: Words, arguments: Arguments) -> str:
    if words.addresses is not None:
        return arguments.put("p.address = ANY ({}::inet[])", words.addresses)
    # A range, for row-level security lets `<<=` near no index.
    has = "p.address >= {} AND p.address <= {}"
    return arguments.put(has, network.network_address, network.broadcast_address)


def _with_personal(tenant_id: TenantId, has: str, stretch: Stretch, arguments: Arguments) -> str:
    texts = [
        arguments.put("p.tenant_id = {}", tenant_id),
        has,
        *within("p", Stretch(stretch.since, stretch.until), "newest", arguments),
    ]
    return f"l.event_id IN (SELECT p.event_id FROM audit_personal AS p WHERE {' AND '.join(texts)})"  # noqa: S608  fixed words, no input


def _with_text(
    tenant_id: TenantId, words: Words, stretch: Stretch, arguments: Arguments
) -> list[list[str]]:
    """Ask for the words a text is in, field by field; for very many, by what they look like."""
    if words.q is None:
        return [[]]
    if words.has_all:
        answers = []
        for name, column in TEXT_COLUMNS.items():
            if found := words.matching.get(name):
                has = arguments.put(f"{column} = ANY ({{}}::text[])", found)
                is_log = column.startswith("l.")
                text = has if is_log else _with_personal(tenant_id, has, stretch, arguments)
                answers.append([text])
        return answers
    pattern = arguments.put("{}", words.pattern)
    # The offset keeps this a look at one row's personal fields, and no list of all that match.
    personal = (
        "SELECT FROM audit_personal AS p WHERE p.event_id = l.event_id"
        f" AND (p.actor_name ILIKE {pattern} OR p.email ILIKE {pattern}) OFFSET 0"
    )
    text = f"(l.action ILIKE {pattern} OR l.reason ILIKE {pattern} OR EXISTS ({personal}))"
    return [[text]]
