"""The platform's own application with routes beside its own that fail, and one that leaks.

`python -m tests.e2e.canaries.leaking PORT` serves it as `maas serve` would.
"""

import sys
from collections.abc import Callable
from typing import Any

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel

from maas import main
from maas.audit.public import audit_scope
from maas.shared.domain.errors import UnavailableError
from maas.shared.interface.dispatch import under
from maas.shared.interface.http_protocol import HeaderTimeoutProtocol

router = APIRouter(prefix="/planted")
log = structlog.get_logger("planted")


class PlantedOutageError(UnavailableError):
    code = "planted-unavailable"
    title = "Planted"


class Credentials(BaseModel):
    """Secrets as they should not be kept."""

    password: str
    refresh_token: int


def _of_headers(request: Request, _body: Any) -> Exception:
    return RuntimeError(f"no luck with {request.headers.raw}")


def _of_mapping(request: Request, _body: Any) -> Exception:
    return RuntimeError(f"no luck with {dict(request.headers)}")


def _of_body(_request: Request, body: Any) -> Exception:
    return ValueError(f"no luck with {body!r}")


def _of_text(_request: Request, body: Any) -> Exception:
    return KeyError("&".join(f"{name}={value}" for name, value in body.items()))


def _of_model(_request: Request, body: Any) -> Exception:
    try:
        Credentials(**body)
    except ValueError as exc:
        return exc
    raise AssertionError


def _of_url(_request: Request, body: Any) -> Exception:
    return OSError(f"cannot reach redis://:{body['password']}@cache:6379/0")


def _of_argument(_request: Request, body: Any) -> Exception:
    return TypeError(f"connect() got user='ada', password='{body['password']}'")


def _of_dependency(request: Request, body: Any) -> Exception:
    error = PlantedOutageError("Planted.")
    error.__cause__ = _of_headers(request, body)
    return error


def _of_group(request: Request, body: Any) -> Exception:
    return ExceptionGroup("two", [_of_body(request, body), _of_model(request, body)])


WAYS: dict[str, Callable[[Request, Any], Exception]] = {
    "headers": _of_headers,
    "mapping": _of_mapping,
    "body": _of_body,
    "text": _of_text,
    "model": _of_model,
    "url": _of_url,
    "argument": _of_argument,
    "dependency": _of_dependency,
    "group": _of_group,
}


@router.post("/failing/{way}")
async def fail(way: str, request: Request) -> None:
    """Fail with an exception whose message holds what was sent."""
    raise WAYS[way](request, await request.json())


@router.post("/leaking")
async def leak(request: Request) -> str:
    """Do with a word, under an innocent name, all that must not be done with a secret."""
    word = str((await request.json())["word"])
    log.info("leaked", note=word)
    async with audit_scope("auth.login") as scope:
        scope.fail(word)
    return word


def make_app() -> FastAPI:
    app = main.make_app()
    app.router.routes += under("", [router])
    return app


if __name__ == "__main__":
    uvicorn.run(
        "tests.e2e.canaries.leaking:make_app",
        factory=True,
        port=int(sys.argv[1]),
        loop="uvloop",
        http=HeaderTimeoutProtocol,
        ws="none",
        log_config=None,
        access_log=False,
    )
