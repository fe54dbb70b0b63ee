"""What the routes of tests and discovery take and give."""

from uuid import UUID

from pydantic import ConfigDict, Field

from maas.model.interface.provider_model_schemas import NameField
from maas.model.public import CheckOutcome
from maas.shared.interface.types import ReadModel, StrictModel


class ProviderTest(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "gpt-4o-mini"}]})

    model: NameField | None = Field(
        default=None,
        description=(
            "Also tell whether the supplier has this model: by its list, or else by a call for one "
            "token, which the supplier charges."
        ),
    )


class ProviderTestRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "outcome": "credential-refused",
                    "message": "The supplier refuses the key.",
                    "advice": "Make a key for this supplier and region, and set it as the "
                    "credential.",
                    "status": 401,
                    "duration_ms": 180,
                    "models_seen": None,
                }
            ]
        }
    )

    outcome: CheckOutcome
    message: str = Field(description="What is the matter; never a word of the supplier's answer.")
    advice: str = Field(description="What to do about it.")
    status: int | None = Field(description="Of the supplier's answer; null: there was none.")
    duration_ms: int
    models_seen: int | None = Field(description="How many models the supplier lists.")


class DiscoveredModelRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "gpt-4o-mini",
                    "title": None,
                    "context_length": None,
                    "model_id": "01935d2e-0000-7000-8000-0000000000b2",
                }
            ]
        }
    )

    name: str = Field(description="As the supplier spells it, and takes it in calls.")
    title: str | None = Field(description="What the supplier calls it to people, if it says.")
    context_length: int | None = Field(description="In tokens, if the supplier says.")
    model_id: UUID | None = Field(description="The model added here; null: it is not added.")
