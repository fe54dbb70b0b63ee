"""`/docs` and `/redoc`: the API in a browser, with scripts of our own and none from elsewhere.

Whoever tries a call there types a token in, so a page of theirs runs what was installed with the
platform, and works without the internet.
"""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Final

import fastapi_offline
from fastapi import APIRouter
from fastapi.openapi.docs import (
    get_redoc_html,
    get_swagger_ui_html,
    get_swagger_ui_oauth2_redirect_html,
)
from starlette.responses import FileResponse, HTMLResponse, Response

from maas.shared.domain.errors import NotFoundError, may_refuse
from maas.shared.interface.readers import StrictRoute

_FOLDER: Final = Path(fastapi_offline.__file__).parent / "static"
_ASSETS: Final = {path.name: path for path in _FOLDER.iterdir()}
_AT: Final = "/docs/assets"
_INLINE: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_POLICY: Final = (
    "default-src 'none'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; "
    "font-src 'self' data:; img-src 'self' data:; connect-src 'self'; worker-src blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)


def make_reference(*, title: str, document: str) -> APIRouter:
    """Make the pages and what they load; `document` is the path of the OpenAPI document."""
    router = APIRouter(route_class=StrictRoute, include_in_schema=False)
    icon = f"{_AT}/favicon.png"
    pages = {
        "/docs": get_swagger_ui_html(
            openapi_url=document,
            title=title,
            oauth2_redirect_url="/docs/oauth2-redirect",
            swagger_js_url=f"{_AT}/swagger-ui-bundle.js",
            swagger_css_url=f"{_AT}/swagger-ui.css",
            swagger_favicon_url=icon,
        ),
        "/docs/oauth2-redirect": get_swagger_ui_oauth2_redirect_html(),
        "/redoc": get_redoc_html(
            openapi_url=document,
            title=title,
            redoc_js_url=f"{_AT}/redoc.standalone.js",
            redoc_favicon_url=icon,
            with_google_fonts=False,
        ),
    }
    for path, page in pages.items():
        _add_page(router, path, bytes(page.body))

    @router.get(f"{_AT}/{{name}}")
    @may_refuse(NotFoundError)
    async def get_asset(name: str) -> Response:
        if name not in _ASSETS:
            raise NotFoundError("The documentation has no such file.")
        return FileResponse(_ASSETS[name], headers={"cache-control": "public, max-age=86400"})

    return router


def _add_page(router: APIRouter, path: str, content: bytes) -> None:
    hashes = [b64encode(sha256(script).digest()).decode() for script in _INLINE.findall(content)]
    policy = _POLICY.format(hashes="".join(f" 'sha256-{each}'" for each in hashes))

    @router.get(path)
    async def get_page() -> Response:
        return HTMLResponse(content, headers={"content-security-policy": policy})
