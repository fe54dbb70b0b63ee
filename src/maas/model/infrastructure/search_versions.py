"""The list of versions, as it is searched."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from maas.model.infrastructure.search_conditions import (
    Arguments,
    Range,
    joined,
    said_of_model,
    said_of_version,
    seen_by,
    times_beyond,
    words_of,
)
from maas.model.infrastructure.search_lists import SearchedList, Source
from maas.shared.domain.page import Position

# These have an index each, in the order of the list.
_LEADS: Final = ("architecture", "quantisation", "status", "framework")


class VersionList(SearchedList):
    """The versions of the tenant's models that are not deleted."""

    table, row, row_id = "version_search s", "s", "version_id"

    @property
    @override
    def leads(self) -> Sequence[str | None]:
        return [name for name in _LEADS if getattr(self._wanted, name) is not None] or (None,)

    @override
    def _base(self, arguments: Arguments) -> list[str]:
        return [f"s.tenant_id = {arguments.put(self._caller.tenant_id)}", "s.is_live"]

    @override
    def _fits(self, arguments: Arguments) -> list[str]:
        return [
            *seen_by(self._caller, "s", arguments),
            *said_of_model(self._wanted, "s", arguments),
            *said_of_version(self._wanted, arguments),
        ]

    @override
    def _sources(
        self, after: Position | None, most: int, ranges: Sequence[Range]
    ) -> Sequence[Source]:
        return self.sources(most, times_beyond(after, self._order), ranges)

    def sources(
        self, most: int, times: tuple[datetime, datetime], ranges: Sequence[Range]
    ) -> list[Source]:
        return [
            *(self._by_range(each, most) for each in ranges),
            *self._by_words(times, most, ranges),
        ]

    def _by_range(self, each: Range, most: int) -> Source:
        arguments = Arguments()
        conditions = [*self._base(arguments), *each.within("s", arguments)]
        return Source(
            "SELECT s.version_id AS id, s.created_at AS at, s.model_id,"  # noqa: S608  fixed words, no input
            f" s.model_created_at AS model_at FROM version_search s WHERE {joined(conditions)}"
            f" LIMIT {most + 1}",
            arguments,
        )

    def _by_words(
        self, times: tuple[datetime, datetime], most: int, ranges: Sequence[Range]
    ) -> list[Source]:
        wanted, arguments = self._wanted, Arguments()
        words = words_of(wanted, ranges)
        if words is None and wanted.search is None:
            return []
        values = (words, wanted.search, *times, most)
        places = ", ".join(map(arguments.put, values))
        return [Source(f"SELECT * FROM registry_versions({places})", arguments)]  # noqa: S608  likewise
