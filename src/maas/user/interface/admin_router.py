"""All routes of the admin area, to be mounted under `/api/v1`."""

from fastapi import APIRouter

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

router = APIRouter()
router.include_router(admin_users.router)
router.include_router(leaving.admin_router)
router.include_router(invitations.router)
router.include_router(roles.router)
router.include_router(permissions.router)
router.include_router(tenants.router)
router.include_router(service_accounts.router)
router.include_router(service_account_keys.router)
router.include_router(quota_admin.router)
router.include_router(quota_admin.platform_router)
