"""Who a request is, and who sent it.

Every request has an ID: a UUIDv7 (RFC 9562, section 5.7), so that IDs sort by time, or the one that a
trusted proxy gave it.
"""

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
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


def client_address(peer: str, forwarded_for: bytes, trusted: Iterable[Network]) -> str:
    """The address of who really asked: the rightmost entry of X-Forwarded-For that is not a trusted proxy.

    Entries to the left of it can be forged by anyone and are not believed. Something that is no address
    ends the walk at the last proxy that was.
    """
    networks = tuple(trusted)
    believed = peer
    for entry in reversed(forwarded_for.decode("latin-1").split(",")):
        try:
            address = ip_address(entry.strip())
        except ValueError:
            return believed
        believed = str(address)
        if not any(address in network for network in networks):
            return believed
    return believed
