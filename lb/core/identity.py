"""Who a request is, and who sent it.

Every request has an ID: a UUIDv7 (RFC 9562, section 5.7), so that IDs sort by time, or the one that a
trusted proxy gave it.
"""

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from os import urandom

Network = IPv4Network | IPv6Network

well_formed_id = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._~+/=-]{7,127}").fullmatch
"""An ID that may be taken over: 8 to 128 characters that are safe in a header, a log and a URL."""

_BATCH = 512
_VARIANT = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)  # any digit to one whose two high bits are 10


def request_ids(now: Callable[[], float]) -> Callable[[], bytes]:
    """Makes a function that returns a new UUIDv7 at each call; `now` is the Unix time in seconds.

    48 bits of milliseconds, then 74 random bits. Randomness is drawn for 512 IDs at a time, since a
    system call for each would cost more than all the rest.
    """
    stamp, stamped, pool, at = b"", -1, b"", 0

    def new() -> bytes:
        nonlocal stamp, stamped, pool, at
        millis = int(now() * 1000)
        if millis != stamped:
            digits = b"%012x" % millis
            stamp, stamped = digits[:8] + b"-" + digits[8:] + b"-7", millis
        if at == len(pool):
            pool, at = urandom(10 * _BATCH).hex().encode(), 0
        random = pool[at : at + 20]
        at += 20
        return b"%b%b-%c%b-%b" % (stamp, random[:3], _VARIANT[random[3]], random[4:7], random[7:19])

    return new


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
