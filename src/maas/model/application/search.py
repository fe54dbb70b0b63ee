"""What the registry is searched by, and what is found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from maas.model.application.queries import ModelSummary, VersionDetails
from maas.model.public import Framework, ModelId, VersionStatus, Visibility
from maas.shared.domain.ids import AccountId
from maas.shared.domain.page import Page, PageRequest
from maas.shared.domain.principal import Principal

Order: TypeAlias = Literal["newest", "oldest"]

Facet: TypeAlias = Literal[
    "framework", "task", "tag", "licence", "status", "architecture", "quantisation"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryFilter:
    """What is wanted; all of it together.

    What is said of versions holds of one version: a model is found if it has one of which all of it
    is true. `search` is a part of a text, in any case, without wildcards; `name` is all of a
    model's name, of which a tenant has one at most.
    """

    search: str | None = None
    name: str | None = None
    tags: tuple[str, ...] = ()
    framework: Framework | None = None
    task: str | None = None
    licence: str | None = None
    visibility: Visibility | None = None
    owner_id: AccountId | None = None
    is_shared: bool = False
    is_deleted: bool = False

    status: VersionStatus | None = None
    alias: str | None = None
    architecture: str | None = None
    quantisation: str | None = None
    dtype: str | None = None
    min_size: int | None = None
    max_size: int | None = None
    min_parameters: int | None = None
    max_parameters: int | None = None
    min_context_length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """The model that a found version is of."""

    id: ModelId
    name: str
    framework: Framework
    task: str | None
    licence: str | None
    visibility: Visibility


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundVersion:
    model: FoundModel
    aliases: Sequence[str]
    version: VersionDetails


@dataclass(frozen=True, slots=True, kw_only=True)
class FacetCount:
    value: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facets:
    """How many of the newest that were found have which value, the most frequent first.

    `models` and `versions` tell how many were counted; unless they are complete, there are more.
    """

    models: int
    are_models_complete: bool
    versions: int
    are_versions_complete: bool
    counts: Mapping[Facet, Sequence[FacetCount]]


class RegistrySearch(Protocol):
    """Finds what the caller may read.

    A page may have fewer items than asked for, or none, and yet be followed by another: where few
    of very many rows fit and no index tells which, one call does not look through all of them.
    """

    async def find_models(
        self, caller: Principal, wanted: RegistryFilter, page: PageRequest, order: Order
    ) -> Page[ModelSummary]: ...

    async def find_versions(
        self, caller: Principal, wanted: RegistryFilter, page: PageRequest, order: Order
    ) -> Page[FoundVersion]: ...

    async def count_facets(self, caller: Principal, wanted: RegistryFilter) -> Facets: ...
