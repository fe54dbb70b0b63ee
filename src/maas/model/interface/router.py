"""All routes of the registry, to be mounted under `/api/v1`."""

from fastapi import APIRouter

from maas.model.interface import files, models, versions

router = APIRouter()
router.include_router(models.router)
router.include_router(versions.router)
router.include_router(files.router)
