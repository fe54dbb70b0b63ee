"""Which URLs and addresses may be called: public ones, and what the operator lists by name."""

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Self, TypeAlias

from yarl import URL

from maas.shared.infrastructure.settings import OutgoingSettings

Address: TypeAlias = IPv4Address | IPv6Address

MAX_URL_CHARS: Final = 2_048
HTTPS: Final = frozenset({443})

_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_SPECIAL: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        # Those of RFC 6890 that Python's own table calls global, or did in some releases. In the
        # first, one cloud has its metadata.
        "192.0.0.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.175.48.0/24",
        # Teredo and 6to4 among them: tunnels to an IPv4 address, which nobody offers any more.
        "2001::/23",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
        # A public address that leads a machine to its own host in another cloud.
        "168.63.129.16/32",
    )
)
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
_LOW_32: Final = 0xFFFF_FFFF

# What browsers take for an IPv4 address, however it is spelled: the last label is a number.
_ENDS_IN_NUMBER: Final = re.compile(r"(?:^|\.)(?:\d+|0[xX][0-9a-fA-F]*)\.?$")
_ODD: Final = re.compile(r'[^\x21-\x7e]|[\\<>"^`{|}]')
_SCHEME: Final = re.compile(r"https?://", re.IGNORECASE)
_USER: Final = re.compile(r"[^:]*://[^/?#]*@")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_NAME: Final = re.compile(
    r"(?=.{1,253}\.?$)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62})*\.?"
)


class RefusedTargetError(Exception):
    """The URL may not be called; the message says why and what would be right."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """`private` are exact `host:port`s that may lie anywhere and speak http; `ports` is for all."""

    private: frozenset[str] = frozenset()
    ports: frozenset[int] = HTTPS

    @classmethod
    def of(cls, settings: OutgoingSettings) -> Self:
        """Take what the operator allows for suppliers."""
        return cls._of(settings, settings.allowed_private_targets)

    @classmethod
    def for_webhooks(cls, settings: OutgoingSettings) -> Self:
        """Take what every tenant may have called: not what was opened for suppliers."""
        return cls._of(settings, settings.allowed_webhook_targets)

    @classmethod
    def _of(cls, settings: OutgoingSettings, private: Iterable[str]) -> Self:
        return cls(
            private=frozenset(each.lower() for each in private),
            ports=frozenset(int(port) for port in settings.allowed_ports) or HTTPS,
        )

    def check(self, text: str) -> URL:
        """Read a URL that may be called, as far as it can be told without resolving its host.

        Raises:
            RefusedTargetError: it may not.
        """
        url = _parse(text)
        host, port = url.raw_host or "", url.port or 0
        if self._is_private_target(host, port):
            return url
        if url.scheme != "https":
            raise RefusedTargetError(
                "Use https: only targets of the operator's list may do without."
            )
        if port not in self.ports:
            allowed = ", ".join(str(each) for each in sorted(self.ports))
            raise RefusedTargetError(f"Use one of these ports: {allowed}.")
        literal = _literal(host)
        if literal is not None and not is_public(literal):
            raise RefusedTargetError("The address is not a public one.")
        return url

    def is_private(self, url: URL) -> bool:
        """Tell whether a URL that was checked is on the operator's list."""
        return self._is_private_target(url.raw_host or "", url.port or 0)

    def check_addresses(self, host: str, port: int, addresses: Collection[str]) -> None:
        """Check what a host's name was resolved to: one bad address spoils them all.

        Raises:
            RefusedTargetError: one of them is not public.
        """
        if self._is_private_target(host, port):
            return
        for address in addresses:
            try:
                is_good = is_public(ipaddress.ip_address(address))
            except ValueError:
                is_good = False
            if not is_good:
                raise RefusedTargetError("The host's name leads to an address that is not public.")

    def _is_private_target(self, host: str, port: int) -> bool:
        shown = f"[{host}]" if ":" in host else host
        return f"{shown}:{port}".lower() in self.private


def _parse(text: str) -> URL:
    """Read a URL with the parser that will also send it; whatever is odd about it is refused."""
    _check_text(text)
    try:
        url = URL(text)
        host, port = url.raw_host, url.port
    except ValueError:
        raise RefusedTargetError("The URL cannot be read.") from None
    if not host or not port:
        raise RefusedTargetError("The URL names no host, or no port that there is.")
    _check_host(host)
    return url


def _check_text(text: str) -> None:
    refusals = (
        (len(text) > MAX_URL_CHARS, f"A URL has at most {MAX_URL_CHARS} characters."),
        (
            _ODD.search(text) is not None,
            "Write the URL in ASCII, other characters as %XX or punycode.",
        ),
        (_SCHEME.match(text) is None, "A URL begins with https://."),
        ("#" in text, "Leave out the part from # on: it is never sent."),
        (_USER.match(text) is not None, "Leave user name and password out of the URL."),
        (not _has_plain_port(text), "Write the port as a plain number."),
    )
    for is_refused, message in refusals:
        if is_refused:
            raise RefusedTargetError(message)


def _has_plain_port(text: str) -> bool:
    """Tell whether the port is none, or digits as they are always written."""
    authority = re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0]
    _, colon, port = authority.rpartition(":")
    return not colon or "]" in port or _PORT.fullmatch(port) is not None


def _check_host(host: str) -> None:
    if _literal(host) is not None:
        return
    if ":" in host:
        raise RefusedTargetError("Write an IPv6 address without a zone.")
    if _ENDS_IN_NUMBER.search(host):
        raise RefusedTargetError("Write an IPv4 address as four numbers with dots.")
    if _NAME.fullmatch(host) is None:
        raise RefusedTargetError("The host is no name and no address.")


def _literal(host: str) -> Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return None if "%" in host else address


def is_public(address: Address) -> bool:
    """Tell whether an address, and every IPv4 address it wraps, can be reached by everybody."""
    if any(address in network for network in _SPECIAL):
        return False
    if isinstance(address, IPv4Address):
        return address.is_global and not (address.is_multicast or address.is_reserved)
    if address.scope_id is not None:
        return False
    # Outside of these no address is public; mapped and compatible ones are written otherwise.
    if address not in _GLOBAL_UNICAST and address not in _NAT64:
        return False
    return address.is_global and all(is_public(inner) for inner in embedded(address))


def embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    """List the IPv4 addresses that translators and tunnels would make of this one."""
    low = int(address) & _LOW_32
    if address in _NAT64:
        yield IPv4Address(low)
    if (int(address) >> 32) & _LOW_32 in _ISATAP:
        yield IPv4Address(low)
