"""Calls to suppliers with their keys: the `SupplierCalls` port."""

import json
from collections.abc import Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Final

import aiohttp
import structlog
from yarl import URL

from maas.model.application.provider_ports import SupplierAccount
from maas.model.domain.provider_check import (
    REDIRECTS,
    SUCCESSES,
    SupplierAnswer,
    SupplierCallError,
)
from maas.model.domain.provider_types import PROVIDER_TYPES
from maas.model.public import CheckOutcome
from maas.shared.infrastructure.outgoing import OutgoingLimits, OutgoingResponse
from maas.shared.infrastructure.outgoing_clients import ClientsByReach
from maas.shared.infrastructure.outgoing_faults import OutgoingError, OutgoingFault

MAX_ANSWER_BYTES: Final = 1024**2
"""The longest list of models known has some 700 kB."""

MAX_REFUSAL_BYTES: Final = 64 * 1024
"""Of a refusal no more is read: what decides stands in its head, or in a short error."""

_LIST: Final = OutgoingLimits(
    connect=timedelta(seconds=5),
    first_byte=timedelta(seconds=10),
    idle=timedelta(seconds=5),
    max_bytes=MAX_ANSWER_BYTES,
)
_CALL: Final = OutgoingLimits(
    connect=timedelta(seconds=5),
    first_byte=timedelta(seconds=25),
    idle=timedelta(seconds=5),
    max_bytes=MAX_ANSWER_BYTES,
)

_OUTCOMES: Final[Mapping[OutgoingFault, CheckOutcome]] = {
    "refused-target": "target-refused",
    "busy": "platform-busy",
    "dns": "name-unresolved",
    "connect": "connection-refused",
    "tls": "tls-failed",
    "timeout": "timed-out",
    "protocol": "answer-odd",
    "too-large": "answer-too-large",
}
# To a tenant these are one: the difference would tell which names there are inside.
_INWARDS: Final = frozenset({"refused-target", "dns"})

_log = structlog.get_logger(__name__)


class OutgoingSupplierCalls:
    def __init__(self, clients: ClientsByReach) -> None:
        self._clients = clients

    async def send(
        self, account: SupplierAccount, path: str, *, body: Mapping[str, object] | None = None
    ) -> SupplierAnswer:
        kind = PROVIDER_TYPES[account.type]
        headers = kind.key_headers(None if account.key is None else account.key.plain)
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with self._clients.reaching(account.reach).open(
                "GET" if body is None else "POST",
                url_of(account, path),
                limits=_LIST if body is None else _CALL,
                headers=headers,
                body=None if body is None else json.dumps(body).encode(),
            ) as response:
                return SupplierAnswer(
                    status=response.status,
                    body=await _read(response),
                    redirect_host=_redirect_host(account, response),
                )
        except OutgoingError as exc:
            raise _explain(account, exc) from None


async def _read(response: OutgoingResponse) -> bytes:
    """Read a success whole, and of a refusal the beginning.

    Raises:
        OutgoingError: a success is too large, or it breaks off.
    """
    body = bytearray()
    async with aclosing(response.chunks()) as chunks:
        async for chunk in chunks:
            body += chunk
            if response.status not in SUCCESSES and len(body) >= MAX_REFUSAL_BYTES:
                break
    return bytes(body)


def url_of(account: SupplierAccount, path: str) -> str:
    """Spell where a call goes, the version of the API included."""
    url = account.base_url + path
    if account.api_version is None:
        return url
    return f"{url}{'&' if '?' in url else '?'}api-version={account.api_version}"


def _explain(account: SupplierAccount, exc: OutgoingError) -> SupplierCallError:
    outcome, detail = _OUTCOMES[exc.fault], None
    if isinstance(exc.__cause__, aiohttp.ClientConnectorCertificateError):
        outcome, detail = "certificate-refused", exc.message
    if exc.fault in _INWARDS and account.reach == "public":
        outcome = "no-public-address"
        # The operator may know which of the two it was.
        _log.info("supplier_has_no_public_address", provider_id=str(account.id), fault=exc.fault)
    return SupplierCallError(outcome, detail)


def _redirect_host(account: SupplierAccount, answer: OutgoingResponse) -> str | None:
    location = answer.headers.get("Location")
    if location is None or answer.status not in REDIRECTS:
        return None
    try:
        return URL(account.base_url).join(URL(location)).raw_host
    except ValueError:
        return None
