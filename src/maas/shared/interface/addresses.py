"""The client's address, through proxies that are trusted and no others."""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_HOPS = 32
MAX_HOP_CHARS = 64


class TrustedProxies:
    """Reads `X-Forwarded-For` from the right, as far as the hops are trusted."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: tuple[Network, ...] = tuple(map(ipaddress.ip_network, networks))

    def trust(self, host: str | None) -> bool:
        """Tell whether the peer's forwarding headers may be believed."""
        if not self._networks or host is None:
            return False
        address = parse_address(host)
        return address is not None and self._holds(address)

    def client_behind(self, peer: str, forwarded: Iterable[bytes]) -> str:
        """Tell the first address from the right that is no proxy of ours.

        A hop that cannot be read ends the walk: what stands left of it may be made up.
        """
        hops = b",".join(forwarded).decode("latin-1").split(",")
        client = peer
        for hop in reversed(hops[-MAX_HOPS:]):
            address = (
                parse_address(_without_port(hop.strip())) if len(hop) <= MAX_HOP_CHARS else None
            )
            if address is None:
                break
            client = str(address)
            if not self._holds(address):
                break
        return client

    def _holds(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


@lru_cache(maxsize=4096)
def parse_address(host: str) -> Address | None:
    """Read an address; an IPv4 one inside IPv6 (`::ffff:1.2.3.4`) comes out as IPv4.

    The zone of an IPv6 one (`fe80::1%eth0`), which may be any text, is left out.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return address.ipv4_mapped or ipaddress.IPv6Address(int(address))


@lru_cache(maxsize=4096)
def normalise(host: str) -> str | None:
    address = parse_address(host)
    return None if address is None else str(address)


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    if hop.count(":") == 1:
        return hop.partition(":")[0]
    return hop
