"""All routes of the registry, to be mounted under `/api/v1`."""

from fastapi import APIRouter

from maas.model.interface import (
    aliases,
    files,
    grants,
    models,
    search,
    settings,
    uploads,
    versions,
)

router = APIRouter()
# Before models, whose ids would take `facets` for one of them.
router.include_router(search.router)
router.include_router(models.router)
router.include_router(grants.router)
router.include_router(versions.router)
router.include_router(files.router)
router.include_router(aliases.router)
router.include_router(uploads.router)
router.include_router(settings.router)
