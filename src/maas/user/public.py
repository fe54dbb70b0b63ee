"""What other contexts may know of identity and access: the built-in roles and what they allow."""

BUILT_IN_ROLES: dict[str, frozenset[str]] = {
    "admin": frozenset({"*:*"}),
    "developer": frozenset(
        {"model:read", "model:write", "model:delete", "deployment:*", "inference:*", "usage:read"}
    ),
    "user": frozenset({"model:read", "inference:*"}),
    "auditor": frozenset({"audit:*", "model:read", "user:read", "usage:read"}),
}
"""Seeded in every tenant and protected; the seeds in the migration are checked against these."""

PLATFORM_ADMIN_ROLE = "platform_admin"
PLATFORM_ADMIN_PERMISSIONS = frozenset({"platform:*"})

SELF_PERMISSIONS = frozenset({"self:read", "self:write", "api_key:read", "api_key:write"})
"""What every signed-in person may do with their own account and keys, whatever their roles."""
