"""Addresses with a socket for each worker, as the supervisor has them."""

from __future__ import annotations

import socket

from lb.control.ports import Port, spread


def bound(host: str = "127.0.0.1", port: int = 0, seats: int = 2) -> Port:
    """Bound and listening. Raises OSError."""
    first = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.setblocking(False)
        first.bind((host, port))
        sockets = spread(first, seats)
    except OSError:
        first.close()
        raise
    for each in sockets:
        each.listen(128)
    return Port("{}:{}".format(*first.getsockname()[:2]), sockets)
