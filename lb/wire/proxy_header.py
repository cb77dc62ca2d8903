"""Headers of the PROXY protocol: who the client is, told to a backend in front of a connection's own bytes.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, versions 1 (a line of text) and 2 (binary).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from lb.wire.proxy_protocol import SIGNATURE

_LOCAL: Final = b"\x20"  # version 2, and who connects speaks for itself
_PROXY: Final = b"\x21"  # version 2, and who connects speaks for someone else
_UNSPEC: Final = b"\x00"
_TCP4: Final = b"\x11"
_TCP6: Final = b"\x21"

End = tuple[str, int]
"""An address and a port; the address may be of no kind that the protocol knows."""


def proxy_header(version: int, source: End, destination: End) -> bytes:
    """The header for a connection on behalf of a client: its end, and the end that it connected to.

    Where one is IPv4 and the other IPv6, both are written as IPv6. Where one is neither (a unix socket), the
    header says that it is not known (`UNKNOWN`, `AF_UNSPEC`).
    """
    ends = _same_family(source[0], destination[0])
    if ends is None:
        return b"PROXY UNKNOWN\r\n" if version == 1 else SIGNATURE + _PROXY + _UNSPEC + b"\x00\x00"
    from_, to = ends
    if version == 1:
        family = "TCP4" if from_.version == 4 else "TCP6"
        return f"PROXY {family} {from_} {to} {source[1]} {destination[1]}\r\n".encode()
    body = from_.packed + to.packed + source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big")
    family_byte = _TCP4 if from_.version == 4 else _TCP6
    return SIGNATURE + _PROXY + family_byte + len(body).to_bytes(2, "big") + body


def local_header(version: int) -> bytes:
    """The header of a connection that is our own, such as a health probe's."""
    return b"PROXY UNKNOWN\r\n" if version == 1 else SIGNATURE + _LOCAL + _UNSPEC + b"\x00\x00"


def _same_family(one: str, other: str) -> tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address] | None:
    try:
        ends = _parsed(one), _parsed(other)
    except ValueError:
        return None
    if ends[0].version == ends[1].version:
        return ends
    return _as_ipv6(ends[0]), _as_ipv6(ends[1])


def _parsed(address: str) -> IPv4Address | IPv6Address:
    found = ip_address(address.partition("%")[0])  # a scope means nothing on another machine
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _as_ipv6(address: IPv4Address | IPv6Address) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(f"::ffff:{address}")
