"""What is asked of the log, as conditions in SQL; values never enter the text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from maas.audit.application.queries import EventFilter, Order
from maas.audit.infrastructure.words import Words
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Position

_LAST_CHARACTER: Final = "\U0010ffff"

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
    for column in (
        "actor_id", "resource_kind", "resource_id", "request_id", "session_id", "api_key_id",
    ):  # fmt: skip
        value = getattr(wanted, column)
        if value is not None:
            texts.append(arguments.put(f"l.{column} = {{}}", value))
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


def with_address(
    tenant_id: TenantId,
    wanted: EventFilter,
    stretch: Stretch,
    words: Words,
    arguments: Arguments,
) -> list[str]:
    if wanted.address is None:
        return []
    texts = [arguments.put("p.tenant_id = {}", tenant_id)]
    if words.addresses is not None:
        texts.append(arguments.put("p.address = ANY ({}::inet[])", words.addresses))
    else:
        # A range, for row-level security lets `<<=` near no index.
        network = wanted.address
        condition = "p.address >= {} AND p.address <= {}"
        texts.append(arguments.put(condition, network.network_address, network.broadcast_address))
    texts += within("p", Stretch(stretch.since, stretch.until), "newest", arguments)
    return [
        f"l.event_id IN (SELECT p.event_id FROM audit_personal AS p WHERE {' AND '.join(texts)})"  # noqa: S608  fixed words, no input
    ]


def with_text(words: Words, arguments: Arguments) -> list[str]:
    """Ask for a text row by row: for each of its words, or by what it looks like."""
    if words.q is None:
        return []
    if words.has_all:
        has = "{} = ANY ({}::text[])"
        values: dict[str, object] = {name: list(found) for name, found in words.matching.items()}
    else:
        has = "{} ILIKE {}"
        values = dict.fromkeys(("action", "reason", "name", "email"), words.pattern)
    texts = [
        arguments.put(has.replace("{}", column, 1), values.get(name, []))
        for column, name in (
            ("l.action", "action"),
            ("l.reason", "reason"),
            ("p.actor_name", "name"),
            ("p.email", "email"),
        )
    ]
    # The offset keeps this a look at one row's personal fields, and no list of all that match.
    personal = (
        "SELECT FROM audit_personal AS p WHERE p.event_id = l.event_id"
        f" AND ({texts[2]} OR {texts[3]}) OFFSET 0"
    )
    return [f"({texts[0]} OR {texts[1]} OR EXISTS ({personal}))"]


def in_stretch(
    tenant_id: TenantId,
    wanted: EventFilter,
    stretch: Stretch,
    order: Order,
    *,
    words: Words,
    arguments: Arguments,
) -> str:
    """Ask for everything that is wanted, row by row."""
    texts: Sequence[str] = [
        *in_columns(tenant_id, wanted, arguments),
        *within("l", stretch, order, arguments),
        *with_address(tenant_id, wanted, stretch, words, arguments),
        *with_text(words, arguments),
    ]
    return " AND ".join(texts)
