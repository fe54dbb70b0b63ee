"""The routers of the admin area, to be served under `/api/v1`."""

from typing import Final

from maas.user.interface import (
    admin_users,
    invitations,
    leaving,
    permissions,
    quota_admin,
    roles,
    service_account_keys,
    service_accounts,
    tenants,
)

routers: Final = (
    admin_users.router,
    leaving.admin_router,
    invitations.router,
    roles.router,
    permissions.router,
    tenants.router,
    service_accounts.router,
    service_account_keys.router,
    quota_admin.router,
    quota_admin.platform_router,
)
