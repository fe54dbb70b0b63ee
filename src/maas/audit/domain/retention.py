"""How long an event is kept: by class, and the class by what was done."""

from typing import Literal, TypeAlias, get_args

RetentionClass: TypeAlias = Literal["security", "operations", "usage"]

RETENTION_CLASSES: tuple[RetentionClass, ...] = get_args(RetentionClass)

_SECURITY = frozenset(
    {
        "access",
        "account",
        "admin",
        "api_key",
        "audit",
        "auth",
        "bootstrap",
        "credential",
        "grant",
        "invitation",
        "membership",
        "password",
        "permission",
        "platform",
        "quota",
        "role",
        "security",
        "service_account",
        "session",
        "tenant",
    }
)
_USAGE = frozenset({"inference", "usage"})


def classify(action: str) -> RetentionClass:
    """Tell an action's class by its first word: `api_key.created` is `security`."""
    subject = action.partition(".")[0]
    if subject in _SECURITY:
        return "security"
    return "usage" if subject in _USAGE else "operations"
