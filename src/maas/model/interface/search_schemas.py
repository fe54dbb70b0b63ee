"""What searches of the registry give."""

from collections.abc import Sequence
from typing import Self
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from maas.model.application.search import FacetCount, Facets
from maas.model.interface.schemas import VersionRead
from maas.model.public import Framework, Visibility
from maas.shared.interface.types import ReadModel

_MODEL: JsonDict = {
    "id": "01935d2e-0000-7000-8000-000000000007",
    "name": "acme/support-bot:7b",
    "framework": "safetensors",
    "task": "text-generation",
    "licence": "Apache-2.0",
    "visibility": "tenant",
}


class FoundModelRead(ReadModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_MODEL]})

    id: UUID
    name: str
    framework: Framework
    task: str | None
    licence: str | None
    visibility: Visibility


class FoundVersionRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": _MODEL,
                    "aliases": ["production"],
                    "version": VersionRead.model_config["json_schema_extra"]["examples"][0],  # type: ignore[index]  # typed as anything JSON may be
                }
            ]
        }
    )

    model: FoundModelRead
    aliases: list[str] = Field(description="Those that point at the version.")
    version: VersionRead


class FacetCountRead(ReadModel):
    value: str
    count: int


class FacetsRead(ReadModel):
    """Framework, task, tag and licence count models; the others count versions."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "models": 2,
                    "are_models_complete": True,
                    "versions": 5,
                    "are_versions_complete": True,
                    "framework": [{"value": "gguf", "count": 2}],
                    "task": [{"value": "text-generation", "count": 2}],
                    "tag": [{"value": "nightly", "count": 1}],
                    "licence": [{"value": "Apache-2.0", "count": 1}],
                    "status": [{"value": "ready", "count": 4}, {"value": "pending", "count": 1}],
                    "architecture": [{"value": "llama", "count": 5}],
                    "quantisation": [{"value": "Q4_K_M", "count": 3}],
                }
            ]
        }
    )

    models: int = Field(description="So many models were counted.")
    are_models_complete: bool = Field(description="Whether those are all that were found.")
    versions: int = Field(description="So many versions were counted.")
    are_versions_complete: bool = Field(description="Whether those are all that were found.")
    framework: list[FacetCountRead]
    task: list[FacetCountRead]
    tag: list[FacetCountRead]
    licence: list[FacetCountRead]
    status: list[FacetCountRead]
    architecture: list[FacetCountRead]
    quantisation: list[FacetCountRead]

    @classmethod
    def of(cls, facets: Facets) -> Self:
        return cls(
            models=facets.models,
            are_models_complete=facets.are_models_complete,
            versions=facets.versions,
            are_versions_complete=facets.are_versions_complete,
            **{facet: _render(counts) for facet, counts in facets.counts.items()},
        )


def _render(counts: Sequence[FacetCount]) -> list[FacetCountRead]:
    return [FacetCountRead.model_validate(count) for count in counts]
