"""Addresses that are not public, and every way to write them."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

INSIDE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "127.0.0.1", "127.255.255.254"),  # noqa: S104  nothing binds to it here
    *("100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("169.254.0.1", "169.254.169.254", "169.254.170.2"),
    *("172.16.0.1", "172.31.255.255", "192.168.0.1"),
    *("192.0.0.1", "192.0.0.9", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
    *("198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    "168.63.129.16",
]
"""With the metadata of five clouds."""

INSIDE_6 = [
    *("::", "::1", "::2", "100::1", "100:0:0:1::1"),
    *("fe80::1", "fe80::1%eth0", "febf::1", "fec0::1"),
    *("fc00::1", "fd00::1", "fd00:ec2::254", "fd20:ce::254"),
    *("ff01::1", "ff02::1", "ff0e::1"),
    *("2001::1", "2001:1::1", "2001:2::1", "2001:3::1", "2001:4:112::1", "2001:10::1"),
    *("2001:20::1", "2001:30::1", "2001:db8::1", "3fff::1", "5f00::1", "4000::1"),
    *("64:ff9b:1::1", "2620:4f:8000::1", "2001:4860::1%eth0"),
]


def plain_forms(address: IPv4Address) -> Iterator[str]:
    """Write an IPv4 address in all the ways that C's `inet_aton` reads."""
    number, parts = int(address), address.packed
    yield from (str(number), f"0x{number:x}", f"0X{number:08X}", f"0{number:o}", f"00{number:o}")
    for sign in ("{:d}", "0x{:x}", "0{:o}", "0000{:o}", "{:03d}"):
        shown = [sign.format(part) for part in parts]
        yield ".".join(shown)
        yield ".".join([*shown[:2], str(number & 0xFFFF)])
        yield ".".join([shown[0], str(number & 0xFFFFFF)])
    yield f"{parts[0]}.{parts[1]:#x}.0{parts[2]:o}.{parts[3]}"
    yield f"{address}."
    yield "%2e".join(str(part) for part in parts)
    yield "".join(f"%{ord(char):02x}" for char in str(address))
    yield str(address).translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)})
    yield str(address).replace(".", "\u3002")


def wrapped_forms(address: IPv4Address) -> Iterator[IPv6Address]:
    """Wrap an IPv4 address in each way that a translator or a tunnel unwraps."""
    low = int(address)
    for prefix in ("::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::"):
        yield IPv6Address(int(IPv6Address(prefix)) | low)
    yield IPv6Address((0x2002 << 112) | (low << 80))
    yield IPv6Address((0x2002 << 112) | (low << 80) | 0x1234)
    teredo = 0x20010000 << 96
    yield IPv6Address(teredo | (low << 64))
    yield IPv6Address(teredo | (0x01010101 << 64) | (low ^ 0xFFFF_FFFF))
    for isatap in (0x00005EFE, 0x02005EFE):
        yield IPv6Address((0x26064700 << 96) | (isatap << 32) | low)


def dotted(address: IPv6Address) -> str:
    """Write its last 32 bits with dots."""
    head = IPv6Address(int(address) >> 32 << 32).exploded.rsplit(":", 2)[0]
    return f"{head}:{IPv4Address(int(address) & 0xFFFF_FFFF)}"
