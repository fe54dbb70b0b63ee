"""Why a call to somebody else's address came to no answer, in words for whoever chose it."""

import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Literal, TypeAlias

import aiohttp

from maas.shared.infrastructure.outgoing_names import LookupsBusyError
from maas.shared.infrastructure.outgoing_targets import RefusedTargetError

OutgoingFault: TypeAlias = Literal[
    "refused-target", "busy", "dns", "connect", "tls", "timeout", "protocol", "too-large"
]


class OutgoingError(Exception):
    """The call did not come to an answer; the message is fit for whoever chose the address."""

    def __init__(self, fault: OutgoingFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message


_FAULTS: Final[Sequence[tuple[type[Exception], OutgoingFault, str]]] = (
    (
        aiohttp.ClientConnectorDNSError,
        "dns",
        "The host's name cannot be resolved: is it spelled right?",
    ),
    (aiohttp.ClientSSLError, "tls", "TLS failed: does the host speak it on this port?"),
    (ssl.SSLError, "tls", "TLS broke off."),
    (
        aiohttp.ConnectionTimeoutError,
        "timeout",
        "The host could not be reached in time: is it up, and is a firewall between?",
    ),
    (TimeoutError, "timeout", "The host did not answer in time."),
    (
        aiohttp.ClientConnectorError,
        "connect",
        "No connection to the host: does it listen on this port?",
    ),
    (aiohttp.ClientError, "protocol", "The connection broke off, or the answer is not HTTP."),
    (OSError, "connect", "No connection to the host."),
    (ValueError, "protocol", "The request cannot be sent so."),
)
"""The first that fits is told; what is told quotes neither the URL nor the answer."""


class _Explained:
    """Turns what aiohttp raises into an `OutgoingError`; it keeps nothing, so one serves all."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        told = None if error is None else _explain(error)
        if told is not None:
            raise told from error


explained: Final = _Explained()


def _explain(error: BaseException) -> OutgoingError | None:
    """Tell what an error means to whoever chose the address; `None` if nothing."""
    if isinstance(error, RefusedTargetError):
        return OutgoingError("refused-target", error.message)
    if isinstance(error, LookupsBusyError):
        message = "Too many names are being looked up: try again in a minute."
        return OutgoingError("busy", message)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or "it is not valid"
        return OutgoingError("tls", f"The host's certificate is refused: {reason}.")
    for kind, fault, message in _FAULTS:
        if isinstance(error, kind):
            return OutgoingError(fault, message)
    return None
