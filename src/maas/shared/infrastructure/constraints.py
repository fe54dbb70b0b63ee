"""Which constraint a refused statement ran into, as the driver tells it."""

from sqlalchemy.exc import IntegrityError


def constraint_of(error: IntegrityError) -> str | None:
    """Name the constraint; the message is for people, and holds what was sent as well."""
    # SQLAlchemy wraps asyncpg's error in one of its own before its `IntegrityError`.
    name: str | None = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)
    return name
