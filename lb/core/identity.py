"""Who a request is, and who sent it.

Every request has an ID: a UUIDv7 (RFC 9562, section 5.7), so that IDs sort by time, or the one that a
trusted proxy gave it.
"""

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from os import urandom
from struct import Struct
from typing import Final

Network = IPv4Network | IPv6Network

well_formed_id: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._~+/=-]{7,127}").fullmatch
"""An ID that may be taken over: 8 to 128 characters that are safe in a header, a log and a URL."""

_BATCH: Final = 512
_VERSION = bytes([0x70 | byte & 0x0F for byte in range(256)])  # 7 in the four high bits
_VARIANT = bytes([0x80 | byte & 0x3F for byte in range(256)])  # 10 in the two high bits
_groups = Struct("4s4s12s").iter_unpack


class RequestIds:
    """Makes UUIDv7s; `now` tells the Unix time in seconds.

    48 bits of milliseconds, then 74 random bits. These are drawn for 512 IDs at a time, since a system call
    for each would cost more than all the rest.
    """

    __slots__ = ("_now", "_stamp", "_stamped", "_tails")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._stamped = -1  # milliseconds, and how they are written
        self._stamp = b""
        self._tails: list[bytes] = []

    def new(self) -> bytes:
        """One that nobody has had yet."""
        millis = int(self._now() * 1000)
        if millis != self._stamped:
            digits = b"%012x" % millis
            self._stamp, self._stamped = digits[:8] + b"-" + digits[8:] + b"-", millis
        tails = self._tails
        if not tails:
            tails.extend(_random_tails())
        return self._stamp + tails.pop()


def _random_tails() -> list[bytes]:
    """What comes behind the time: `7xxx-Vxxx-xxxxxxxxxxxx`, ten bytes each."""
    octets = bytearray(urandom(10 * _BATCH))
    octets[0::10] = octets[0::10].translate(_VERSION)
    octets[2::10] = octets[2::10].translate(_VARIANT)
    return list(map(b"-".join, _groups(octets.hex().encode())))


UNIX: Final = "unix"
"""Whoever comes in at a unix socket has no address: this stands for it, `unix:` toward the backend."""

_MAPPED: Final = "::ffff:"
_with_port: Final = re.compile(r"([0-9.]+|\[[0-9A-Fa-f:.]+\])(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?").fullmatch


def plain_address(address: str) -> str:
    """An IPv4 address that is written as IPv6 (RFC 4291, section 2.5.5.2) as what it is, any other as it is.

    A socket for both families gives each IPv4 client such an address.
    """
    if address[:7].lower() != _MAPPED:
        return address
    try:
        return str(_address(address))
    except ValueError:
        return address


def _address(text: str) -> IPv4Address | IPv6Address:
    found = ip_address(text)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def node_address(node: str) -> str:
    """The address out of `192.0.2.1`, `192.0.2.1:567`, `2001:db8::1`, `[2001:db8::1]:567` or the same in
    quotes; `unix` out of `unix:`; nothing where there is none, as in `unknown` and `_hidden`."""
    node = node.strip(" \t")
    if len(node) > 1 and node[0] == node[-1] == '"':
        node = node[1:-1]
    if node in (UNIX, "unix:"):
        return UNIX
    match = _with_port(node)
    try:
        return str(_address(match[1].strip("[]") if match is not None else node))
    except ValueError:
        return ""


class Proxies:
    """The proxies whose word is believed: networks, and who comes in at a unix socket (`unix`) or doesn't."""

    def __init__(self, networks: Iterable[Network] = (), unix: bool = False) -> None:
        self.networks = tuple(networks)
        self.unix = unix

    def __bool__(self) -> bool:
        return self.unix or bool(self.networks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxies) and (self.networks, self.unix) == (other.networks, other.unix)

    def __hash__(self) -> int:
        return hash((self.networks, self.unix))

    def trusts(self, peer: str) -> bool:
        """Whether this address is one of theirs. Where IPv4 is written as IPv6, both ways count."""
        if peer in (UNIX, "unix:"):
            return self.unix
        try:
            written = ip_address(peer)
        except ValueError:
            return False
        mapped = written.ipv4_mapped if isinstance(written, IPv6Address) else None
        for network in self.networks:
            if written in network or (mapped is not None and mapped in network):
                return True
        return False


def client_address(peer: str, forwarded_for: bytes, proxies: Proxies) -> str:
    """The address of who really asked: the rightmost entry of X-Forwarded-For that is not a trusted proxy.

    Entries to the left of it can be forged by anyone and are not believed. Something that is no address
    ends the walk at the last proxy that was. A port behind the address is no part of it.
    """
    believed = peer
    for entry in reversed(forwarded_for.decode("latin-1").split(",")):
        address = node_address(entry)
        if not address:
            return believed
        believed = address
        if not proxies.trusts(address):
            return believed
    return believed
