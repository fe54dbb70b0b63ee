"""What of people's access may enter the audit trail: nothing personal, nothing secret."""

from maas.audit.public import AuditedResource

MEMBER = AuditedResource(
    "account",
    frozenset(
        {
            "status",
            "roles",
            "password_change_required",
            "fields",
            "home_tenant_id",
            "is_account_deleted",
            "api_keys_revoked",
        }
    ),
)
"""`fields` names what was changed of a person's own data, never to what."""

ROLE = AuditedResource("role", frozenset({"permissions", "description"}))
TENANT = AuditedResource("tenant", frozenset({"slug", "name", "status"}))
