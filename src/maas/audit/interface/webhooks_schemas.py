"""Webhooks on the wire."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from maas.audit.application.deliveries import DeliveryStatus
from maas.audit.domain.rules import RULES, RuleName
from maas.audit.domain.webhooks import WebhookStatus
from maas.shared.interface.types import Instant, Name, ReadModel, StrictModel

MAX_URL_CHARS = 2_048

Url = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_URL_CHARS),
    Field(examples=["https://alerts.example.com/maas"]),
]
RuleList = Annotated[list[RuleName], Field(max_length=len(RULES))]

_WEBHOOK: JsonDict = {
    "id": "01935d2e-0000-7000-8000-0000000000a1",
    "name": "On call",
    "url": "https://alerts.example.com/maas",
    "rules": ["new-admin"],
    "status": "active",
    "status_reason": None,
    "failures": 0,
    "pending": 0,
    "next_attempt_at": None,
    "created_at": "2026-11-21T08:00:00Z",
    "updated_at": "2026-11-21T08:00:00Z",
    "version": 1,
}


def _absent() -> Any:
    """Stand in for a field that was not sent; it is never looked at."""


class WebhookCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "On call",
                    "url": "https://alerts.example.com/maas",
                    "rules": ["new-admin"],
                }
            ]
        }
    )

    name: Name
    url: Url
    rules: RuleList = Field(
        default_factory=list, description="Whose alerts to send; none means all."
    )


class WebhookUpdate(StrictModel):
    """Fields that are absent stay as they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "disabled"}]})

    name: Name = Field(default_factory=_absent)
    url: Url = Field(default_factory=_absent)
    rules: RuleList = Field(default_factory=_absent)
    status: WebhookStatus = Field(default_factory=_absent)


class WebhookRead(ReadModel):
    """`failures` counts those in a row, `pending` the deliveries that wait.

    `status_reason` is `gone` where the receiver answered 410, which turns a webhook off.
    """

    model_config = ConfigDict(
        from_attributes=True, frozen=True, json_schema_extra={"examples": [_WEBHOOK]}
    )

    id: UUID
    name: str
    url: str
    rules: list[RuleName]
    status: WebhookStatus
    status_reason: str | None
    failures: int
    pending: int
    next_attempt_at: Instant | None
    created_at: Instant
    updated_at: Instant
    version: int


class WebhookSecretRead(WebhookRead):
    """A webhook with its secret, which is shown this once."""

    model_config = ConfigDict(
        from_attributes=True,
        frozen=True,
        json_schema_extra={
            "examples": [
                {**_WEBHOOK, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw1ilMYQw5QH4="}
            ]
        },
    )

    secret: str


class TestRead(ReadModel):
    """What the receiver said, or why there was no answer; `message` says what to do."""

    __test__ = False

    model_config = ConfigDict(
        from_attributes=True,
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "delivery_id": "01935d2e-0000-7000-8000-0000000000d1",
                    "is_success": False,
                    "status": None,
                    "error": "tls",
                    "message": "The host's certificate is refused: certificate has expired.",
                    "duration_ms": 87,
                }
            ]
        },
    )

    delivery_id: UUID
    is_success: bool
    status: int | None
    error: str | None
    message: str
    duration_ms: int


class DeliveryRead(ReadModel):
    """One delivery; `alert_id` is null for a test. Ids are the same at each attempt."""

    model_config = ConfigDict(
        from_attributes=True,
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-0000000000d1",
                    "alert_id": "01935d2e-7a1c-7c3e-9d39-3b1a2f4c5d70",
                    "rule": "mass-deletion",
                    "status": "pending",
                    "attempts": 3,
                    "created_at": "2026-11-21T08:04:12Z",
                    "last_attempt_at": "2026-11-21T08:04:30Z",
                    "next_attempt_at": "2026-11-21T08:04:50Z",
                    "finished_at": None,
                    "last_status": 503,
                    "last_error": "status",
                }
            ]
        },
    )

    id: UUID
    alert_id: UUID | None
    rule: str | None
    status: DeliveryStatus
    attempts: int
    created_at: Instant
    last_attempt_at: Instant | None
    next_attempt_at: Instant | None
    finished_at: Instant | None
    last_status: int | None
    last_error: str | None
