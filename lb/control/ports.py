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
    """An address that is bound: a socket for each seat, or one for all."""

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


def bind(host: str, port: int, seats: int, backlog: int) -> Port:
    """Binds an address for so many workers, and listens. Raises OSError where it can't be had.

    Port 0 takes a free one, which the name then tells.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if seats == 1 or not hasattr(socket, "SO_REUSEPORT"):
        sockets = [_bound(family, host, port, reuse=False)]
    else:
        # With SO_REUSEPORT the kernel would let us share with another balancer of the same user, and each
        # would get half of the other's clients.
        _bound(family, host, port, reuse=False).close()
        sockets = [_bound(family, host, port, reuse=True)]
        port = sockets[0].getsockname()[1]
        try:
            sockets += [_bound(family, host, port, reuse=True) for _ in range(1, seats)]
        except OSError:
            sockets[0].close()
            raise
    for each in sockets:
        each.listen(backlog)
    port = sockets[0].getsockname()[1]
    return Port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", sockets)


def _bound(family: socket.AddressFamily, host: str, port: int, reuse: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setblocking(False)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
