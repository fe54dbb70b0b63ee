"""What of accounts and sessions may enter the audit trail: nothing personal, nothing secret."""

from maas.audit.public import AuditedResource

ACCOUNT = AuditedResource(
    "account",
    frozenset(
        {
            "status",
            "password_change_required",
            "home_tenant_id",
            "roles",
            "sessions_ended",
            "api_keys_revoked",
            "fields",
        }
    ),
)
"""`fields` names what was changed of a person's own data, never to what."""
SESSION = AuditedResource("session", frozenset({"revoked_reason", "generation"}))
