"""`maas runtime`: answers from weights of the registry, beside the API."""

from importlib.util import find_spec
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer
import uvicorn

from maas.embedded.address import check_free
from maas.embedded.errors import PortTakenError
from maas.terminal import fail, load, read_settings, seconds_to_finish

LIBRARY: Final = "xllamacpp"
DEFAULT_PORT: Final = 8001


def is_runtime_installed() -> bool:
    return find_spec(LIBRARY) is not None


def runtime(
    *,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, else that of MAAS_RUNTIME__URL.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help=f"Port, else that of MAAS_RUNTIME__URL, else {DEFAULT_PORT}."
        ),
    ] = None,
) -> None:
    """Answer calls from versions of the registry, for the API. `maas up` runs it by itself.

    Whoever reaches its port needs the token that follows from MAAS_SECRET_KEY. Traffic is not
    encrypted, so listen where nobody else reads.
    """
    if not is_runtime_installed():
        raise fail("xllamacpp is not installed: pip install '.[llamacpp]' in a clone")
    settings = read_settings()
    url = urlsplit(settings.runtime.url or "")
    # Behind a name of another network, such as a container's, it must be told where to listen.
    where = host or ("127.0.0.1" if url.hostname in {None, "localhost"} else url.hostname)
    at = port or url.port or DEFAULT_PORT
    try:
        check_free(where, at)
    except PortTakenError as exc:
        raise fail(f"{exc.message} {exc.hint}") from None
    load("maas.shared.infrastructure.logging:configure_logging")(
        level=settings.effective_log_level, format=settings.log_format
    )
    weights = load("maas.model.wiring:build_weights")(settings)
    uvicorn.run(
        load("maas.inference.runtime_wiring:build_runtime")(settings, weights=weights),
        host=where,
        port=at,
        loop="uvloop",
        http=load("maas.shared.interface.http_protocol:HeaderTimeoutProtocol"),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=seconds_to_finish(settings),
    )
