"""The platform's application and one route more, which asks for a permission and for no row."""

from fastapi import APIRouter, FastAPI

from bench.bare import Alive
from maas import main
from maas.shared.interface.dispatch import under
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import requires

PATH = "/bench/keyed"

router = APIRouter(route_class=StrictRoute)


@router.get(PATH, dependencies=[requires("model:read")])
async def keyed() -> Alive:
    return Alive(status="alive")


def make_app() -> FastAPI:
    """Build it from the environment, for `uvicorn --factory`."""
    app = main.make_app()
    app.router.routes += under("", [router])
    return app
