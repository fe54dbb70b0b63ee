"""What the trail may hold about models."""

import json
from collections.abc import Mapping

from maas.audit.public import AuditedResource

MODEL = AuditedResource(
    "model",
    frozenset(
        {
            "name",
            "framework",
            "task",
            "licence",
            "description",
            "card",
            "visibility",
            "owner_id",
            "tags",
            "metadata",
            "granted_to",
        }
    ),
)
MODEL_VERSION = AuditedResource(
    "model_version",
    frozenset(
        {
            "model_id",
            "version",
            "status",
            "reason",
            "description",
            "files",
            "size",
            "checksum",
            "source",
            "metrics",
            "metadata",
        }
    ),
)
MODEL_ALIAS = AuditedResource("model_alias", frozenset({"model_id", "alias", "version", "reason"}))
MODEL_FILE = AuditedResource(
    "model_file", frozenset({"version_id", "path", "sha256", "size", "media_type"})
)
MODEL_SETTINGS = AuditedResource("model_settings", frozenset({"allows_pickle"}))
MODEL_UPLOAD = AuditedResource("model_upload", frozenset({"kind", "length", "version_id", "path"}))

PROVIDER = AuditedResource(
    "provider",
    frozenset(
        {
            "name",
            "type",
            "base_url",
            "reach",
            "api_version",
            "description",
            "status",
            "has_credential",
            "outcome",
            "health",
            "granted_to",
        }
    ),
)
"""Of a credential no more than whether there is one."""

PROVIDER_MODEL = AuditedResource(
    "provider_model",
    frozenset(
        {
            "provider_id",
            "name",
            "capabilities",
            "context_length",
            "max_output_tokens",
            "status",
            "price_id",
            "currency",
            "input",
            "output",
            "cached",
            "reasoning",
            "request",
            "valid_from",
        }
    ),
)


def spell(entries: Mapping[str, str | float | bool]) -> list[str]:
    """Write entries one by one, for the trail holds nothing nested and no floats."""
    return [f"{key}={json.dumps(entries[key], ensure_ascii=False)}" for key in sorted(entries)]
