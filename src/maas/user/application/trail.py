"""What of accounts and sessions may enter the audit trail: nothing personal, nothing secret."""

from maas.audit.public import AuditedResource

ACCOUNT = AuditedResource(
    "account",
    frozenset({"status", "password_change_required", "home_tenant_id", "roles", "sessions_ended"}),
)
SESSION = AuditedResource("session", frozenset({"revoked_reason", "generation"}))
