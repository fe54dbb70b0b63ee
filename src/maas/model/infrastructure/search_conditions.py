"""What a search of the registry wants, spelled as conditions, and as words of an index."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from maas.model.application.search import Order, RegistryFilter
from maas.model.public import MANAGE_MODELS
from maas.shared.domain.page import Position
from maas.shared.domain.principal import Principal

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
FEW_POWERS: Final = 3
"""A range over more powers of two than that is cut at what there is."""

MOST_POWERS: Final = 16
"""A range over more powers than that is no word of the index: most rows are in it."""

DIRECTIONS: Final = {"newest": "DESC", "oldest": "ASC"}
_BEYOND: Final = {"newest": "<", "oldest": ">"}
_NAMES: Final = {"m": "name", "s": "model_name"}
_TEXTS: Final = {"m": ("name", "description"), "s": ("model_name", "version")}
_SAID: Final = ("framework", "task", "licence", "visibility", "owner_id")
_OF_VERSION: Final = ("status", "architecture", "quantisation", "dtype")
_RANGES: Final = {
    "size": ("size", "min_size", "max_size"),
    "parameters": ("parameters", "min_parameters", "max_parameters"),
    "context": ("context_length", "min_context_length", None),
}


@dataclass(slots=True)
class Arguments:
    """The values of a query, each once, and what stands for them in its text."""

    values: list[object] = field(default_factory=list)

    def put(self, value: object) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


@dataclass(frozen=True, slots=True)
class Range:
    """A column of numbers and its bounds, of which one may be open.

    `extent` is the least and the most that there is, if that was looked up.
    """

    word: str
    column: str
    least: int | None
    most: int | None
    extent: tuple[int, int] | None = None

    @property
    def powers(self) -> range:
        """The powers of two it reaches over, of those that there are."""
        first, last = self._extent_powers
        if self.least is not None:
            first = max(first, _power(self.least))
        if self.most is not None:
            last = min(last, _power(self.most))
        return range(first, last + 1)

    @property
    def is_word(self) -> bool:
        """Whether the index of words tells few from many by it."""
        is_everything = (self.powers.start, self.powers.stop - 1) == self._extent_powers
        return 1 <= len(self.powers) <= MOST_POWERS and not is_everything

    @property
    def _extent_powers(self) -> tuple[int, int]:
        return (0, 62) if self.extent is None else (_power(self.extent[0]), _power(self.extent[1]))

    def cut(self, least: int | None, most: int | None) -> "Range":
        """Note the least and the most that there is; none where nothing is known."""
        return self if least is None or most is None else replace(self, extent=(least, most))

    def within(self, row: str, arguments: Arguments) -> list[str]:
        texts = []
        if self.least is not None:
            texts.append(f"{row}.{self.column} >= {arguments.put(self.least)}")
        if self.most is not None:
            texts.append(f"{row}.{self.column} <= {arguments.put(self.most)}")
        return texts


def ranges_of(wanted: RegistryFilter) -> list[Range]:
    found = []
    for word, (column, least, most) in _RANGES.items():
        bounds = getattr(wanted, least), None if most is None else getattr(wanted, most)
        if bounds != (None, None):
            found.append(Range(word, column, *bounds))
    return found


def is_about_versions(wanted: RegistryFilter) -> bool:
    said = (getattr(wanted, name) for name in (*_OF_VERSION, "alias"))
    return any(value is not None for value in said) or bool(ranges_of(wanted))


def seen_by(caller: Principal, row: str, arguments: Arguments) -> list[str]:
    """Leave out what is private and somebody else's."""
    if caller.may(MANAGE_MODELS):
        return []
    mine = arguments.put(caller.account_id)
    return [f"({row}.visibility <> 'private' OR {row}.owner_id = {mine})"]


def said_of_model(wanted: RegistryFilter, row: str, arguments: Arguments) -> list[str]:
    """Spell what is wanted of a model, of `models m` or of `version_search s`."""
    texts = [
        f"{row}.{name} = {arguments.put(value)}"
        for name in _SAID
        if (value := getattr(wanted, name)) is not None
    ]
    if wanted.name is not None:
        texts.append(f"{row}.{_NAMES[row]} = {arguments.put(wanted.name)}")
    if wanted.search is not None:
        pattern = arguments.put(_pattern(wanted.search))
        alike = " OR ".join(f"{row}.{column} ILIKE {pattern}" for column in _TEXTS[row])
        texts.append(f"({alike})")
    if wanted.tags and row == "s":
        texts.append(f"s.tags @> {arguments.put(list(wanted.tags))}::text[]")
    elif wanted.tags:
        texts += [
            "EXISTS (SELECT FROM model_tags t WHERE t.model_id = m.id"
            f" AND t.tenant_id = m.tenant_id AND t.tag = {arguments.put(tag)})"
            for tag in wanted.tags
        ]
    return texts


def said_of_version(wanted: RegistryFilter, arguments: Arguments) -> list[str]:
    """Spell what is wanted of one version, of `version_search s`."""
    texts = [
        f"s.{name} = {arguments.put(value)}"
        for name in _OF_VERSION
        if (value := getattr(wanted, name)) is not None
    ]
    if wanted.alias is not None:
        texts.append(f"s.aliases @> {arguments.put([wanted.alias])}::text[]")
    for each in ranges_of(wanted):
        texts += each.within("s", arguments)
    return texts


def beyond(
    row: str, row_id: str, after: Position | None, order: Order, arguments: Arguments
) -> list[str]:
    return _beyond(f"{row}.created_at, {row}.{row_id}", after, order, arguments)


def models_beyond(after: Position | None, order: Order, arguments: Arguments) -> list[str]:
    """Spell which versions are of later models of the list, of `version_search s`."""
    return _beyond("s.model_created_at, s.model_id", after, order, arguments)


def _beyond(columns: str, after: Position | None, order: Order, arguments: Arguments) -> list[str]:
    if after is None:
        return []
    position = f"{arguments.put(after.at)}, {arguments.put(after.id)}"
    return [f"({columns}) {_BEYOND[order]} ({position})"]


def times_beyond(after: Position | None, order: Order) -> tuple[datetime, datetime]:
    if after is None:
        return EARLIEST, LATEST
    return (EARLIEST, after.at) if order == "newest" else (after.at, LATEST)


def words_of(wanted: RegistryFilter, ranges: Sequence[Range] | None = None) -> str | None:
    """Spell as a `tsquery` what the index of words has of models, or with ranges of versions too.

    Tags are no words of models: they are in a table of their own. Ranges alone are none either:
    they have indexes that need not be read to the end.
    """
    parts = [
        _word(name, value)
        for name in ("framework", "task", "licence", "visibility")
        if (value := getattr(wanted, name)) is not None
    ]
    if wanted.owner_id is not None:
        parts.append(_word("owner", str(wanted.owner_id)))
    if ranges is not None:
        parts += [_word("tag", tag) for tag in wanted.tags]
        parts += [
            _word(name, value)
            for name in (*_OF_VERSION, "alias")
            if (value := getattr(wanted, name)) is not None
        ]
    if ranges is not None and (parts or wanted.search is not None):
        parts += [
            "(" + " | ".join(_word(each.word, str(power)) for power in each.powers) + ")"
            for each in ranges
            if each.is_word
        ]
    return " & ".join(parts) or None


def _word(kind: str, value: str) -> str:
    text = f"{kind}={value}".replace("\\", "\\\\").replace("'", "''")
    return f"'{text}'"


def _power(number: int) -> int:
    return max(number, 1).bit_length() - 1


def _pattern(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def joined(conditions: Sequence[str]) -> str:
    return " AND ".join(conditions) or "true"
