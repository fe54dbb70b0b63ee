"""The three database roles: who owns the tables, who serves requests, who sees all tenants."""

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from maas.shared.infrastructure.database import APP_ROLE, SYSTEM_ROLE

OWNER_ROLE = "maas_owner"

_ATTRIBUTES = {
    OWNER_ROLE: "NOLOGIN NOBYPASSRLS",
    APP_ROLE: "NOLOGIN NOBYPASSRLS",
    SYSTEM_ROLE: "NOLOGIN BYPASSRLS",
}


class RolesMissingError(RuntimeError):
    """The connecting user may not create the roles, so somebody else must."""


def ensure_roles(connection: Connection) -> None:
    """Create the roles where they are missing, and let the owner make tables here.

    Roles belong to the cluster, not the database, so no downgrade drops them. They cannot log in
    until an administrator says `ALTER ROLE maas_app LOGIN PASSWORD ...`; a single URL steps into
    them instead.

    Raises:
        RolesMissingError: the user may not create them; the message holds the statements to run.
    """
    existing = set(
        connection.scalars(
            text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:names)"),
            {"names": list(_ATTRIBUTES)},
        )
    )
    connecting_as = connection.scalar(text("SELECT session_user"))
    if connecting_as == OWNER_ROLE and len(existing) == len(_ATTRIBUTES):
        connection.commit()
        return
    try:
        for role, attributes in _ATTRIBUTES.items():
            if role not in existing:
                connection.execute(text(f"CREATE ROLE {role} {attributes}"))
        for role in _ATTRIBUTES:
            if role != connecting_as:
                connection.execute(
                    text(f"GRANT {role} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE")
                )
        database = connection.scalar(text("SELECT quote_ident(current_database())"))
        connection.execute(text(f"GRANT CONNECT, CREATE ON DATABASE {database} TO {OWNER_ROLE}"))
        connection.execute(text(f"GRANT USAGE, CREATE ON SCHEMA public TO {OWNER_ROLE}"))
        # A cluster that came from PostgreSQL 14 or older lets everybody make tables there.
        connection.execute(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        connection.commit()
    except ProgrammingError as exc:
        connection.rollback()
        statements = "; ".join(
            f"CREATE ROLE {role} {attributes}" for role, attributes in _ATTRIBUTES.items()
        )
        message = (
            f"{connecting_as} may not set up the database roles; let an administrator run, once:\n"
            f"  {statements}; GRANT {', '.join(_ATTRIBUTES)} TO {connecting_as};\n"
            f"  GRANT USAGE, CREATE ON SCHEMA public TO {OWNER_ROLE};"
        )
        raise RolesMissingError(message) from exc
