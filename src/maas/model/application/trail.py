"""What the trail may hold about models."""

from maas.audit.public import AuditedResource

MODEL = AuditedResource("model", frozenset({"name", "framework", "task", "licence", "description"}))
MODEL_VERSION = AuditedResource(
    "model_version", frozenset({"model_id", "version", "status", "reason", "description", "files"})
)
MODEL_FILE = AuditedResource(
    "model_file", frozenset({"version_id", "path", "sha256", "size", "media_type"})
)
