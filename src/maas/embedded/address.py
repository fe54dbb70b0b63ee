"""The address the API listens on: free before the start, answering after it."""

import errno
import http.client
import socket
from contextlib import closing, suppress

from maas.embedded.errors import PortTakenError

_ANSWER_SECONDS = 2.0
_OK = 200
_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  as a target


def check_free(host: str, port: int) -> None:
    """Raise PortTakenError unless a server could listen there now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as exc:
        raise _explain(exc, host, port) from exc


def find_free_port() -> int:
    """Find a port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def url_of(host: str, port: int) -> str:
    """Return where a person on this machine opens the API."""
    target = _ANY_ADDRESS.get(host, host)
    return f"http://[{target}]:{port}" if ":" in target else f"http://{target}:{port}"


def is_ready(host: str, port: int) -> bool:
    """Tell whether `/health/ready` answers 200."""
    connection = http.client.HTTPConnection(
        _ANY_ADDRESS.get(host, host), port, timeout=_ANSWER_SECONDS
    )
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == _OK
    return False


def _explain(error: OSError, host: str, port: int) -> PortTakenError:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return PortTakenError(
            f"{host} is not an address of this machine.",
            "Choose one with `maas up --host 127.0.0.1` (or MAAS_HOST).",
        )
    if isinstance(error, PermissionError):
        return PortTakenError(
            f"Port {port} needs rights that this account does not have.",
            "Choose a port from 1024 up: maas up --port 8000 (or MAAS_PORT).",
        )
    return PortTakenError(
        f"Port {port} on {host} is already in use.",
        f"Choose another: maas up --port {port + 1} (or MAAS_PORT), or stop what uses it.",
    )
