"""Looking up names that somebody else chose, in threads that nothing else needs.

A name server that does not answer holds a thread for as long as the system's resolver is patient,
which may be half a minute. asyncio's own look-ups take the threads that everything else shares.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override

LOOKUPS_AT_ONCE: Final = 32
"""In a process; also those that nobody waits for any more, until they end."""

_NUMERIC: Final = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
_slots: Final = threading.BoundedSemaphore(LOOKUPS_AT_ONCE)

_Found: TypeAlias = "asyncio.Future[Sequence[str]]"


class LookupsBusyError(Exception):
    """As many names are being looked up as may be at a time."""


class OwnThreadsResolver(AbstractResolver):
    """Looks up names with the system's resolver; refuses at once where all threads hang."""

    def __init__(self, slots: threading.BoundedSemaphore = _slots) -> None:
        self._slots = slots

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look up a name.

        Raises:
            LookupsBusyError: too many are under way.
            OSError: it cannot be resolved.
        """
        loop = asyncio.get_running_loop()
        found: _Found = loop.create_future()
        if not self._slots.acquire(blocking=False):
            raise LookupsBusyError
        # A daemon: the process need not wait for a name server when it ends.
        thread = threading.Thread(
            target=self._look_up, args=(loop, found, host, port, family), daemon=True
        )
        try:
            thread.start()
        except RuntimeError as exc:
            self._slots.release()
            raise LookupsBusyError from exc
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await found
        ]

    @override
    async def close(self) -> None: ...

    def _look_up(
        self,
        loop: asyncio.AbstractEventLoop,
        found: _Found,
        host: str,
        port: int,
        family: socket.AddressFamily,
    ) -> None:
        told: Callable[..., None] = found.set_result
        what: Any
        try:
            what = _addresses(host, port, family)
        except Exception as exc:  # noqa: BLE001  it is raised where the name is waited for
            told, what = found.set_exception, exc
        finally:
            self._slots.release()

        def tell() -> None:
            if not found.done():
                told(what)

        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell)


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[str]:
    infos = socket.getaddrinfo(
        host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    # A link-local address shows its zone only so.
    return [socket.getnameinfo(address, _NUMERIC)[0] for *_, address in infos]
