"""The sockets that workers accept on. The supervisor binds them and keeps them, whichever worker dies.

A socket for each worker, all on one address by SO_REUSEPORT: the kernel deals out the connections by a hash
of the client's address. Of 64 connections to two workers the busier one got 35 (median of 80 rounds; at most
43). With one socket for both it got 51, and sometimes all: the worker that wakes first takes whatever is
there, since libuv knows no EPOLLEXCLUSIVE. So one socket is only for where it can't be otherwise: Unix
sockets, and systems without SO_REUSEPORT.

A connection that waits to be accepted waits in one worker's socket. It isn't lost when that worker dies,
since the supervisor holds the socket too: another worker takes it, until there is a new one.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence


class Port:
    """An address that is bound: a socket for each seat, or one for all. The name is no other one's."""

    def __init__(self, name: str, sockets: Sequence[socket.socket]) -> None:
        self.name = name
        self.sockets = sockets

    @property
    def shared(self) -> bool:
        """Whether there is one socket for all."""
        return len(self.sockets) == 1

    def of(self, seat: int) -> socket.socket:
        """The one that the worker of this seat accepts on."""
        return self.sockets[0 if self.shared else seat]

    def close(self) -> None:
        for each in self.sockets:
            each.close()


def spread(first: socket.socket, seats: int, there: Sequence[socket.socket] = ()) -> list[socket.socket]:
    """A socket for each of so many workers on the address of this one, which is theirs too, as are those
    that are `there` already. Raises OSError.

    It is to be bound without SO_REUSEPORT, which would let us share with another balancer of the same user,
    each with half of the other's clients. It gets that only now.
    """
    if first.family == socket.AF_UNIX or not hasattr(socket, "SO_REUSEPORT"):
        return [first]
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    fresh: list[socket.socket] = []
    try:
        while 1 + len(there) + len(fresh) < seats:
            fresh.append(_beside(first))
    except OSError:
        for each in fresh:
            each.close()
        raise
    return [first, *there, *fresh]


def _beside(first: socket.socket) -> socket.socket:
    bound = socket.socket(first.family, first.type)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setblocking(False)
        bound.bind(first.getsockname())
    except OSError:
        bound.close()
        raise
    return bound
