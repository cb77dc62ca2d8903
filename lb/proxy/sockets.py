"""The sockets of an address that is listened on: bound here, or inherited from who started us."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Sequence

BACKLOG = 4096  # connections that wait to be accepted; the kernel's own bound may be lower
_NOBODY_THERE = (ConnectionRefusedError, FileNotFoundError)
_NO_SUCH_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Inherited:
    """Listening sockets that whoever started us has given us, by name, until someone takes them."""

    def __init__(self, sockets: Sequence[tuple[str, socket.socket]] = ()) -> None:
        self._left = list(sockets)
        self.there = bool(sockets)  # whether there was any
        self.taken = False  # and someone wanted it

    def take(self, family: int, address: object, name: str = "") -> socket.socket | None:
        """The one that is bound to this address. Where any port will do (0), one of this name on the host."""
        for entry in self._left:
            called, sock = entry
            if sock.family == family and _fits(sock.getsockname(), address, called == name):
                self._left.remove(entry)
                self.taken = True
                return sock
        return None

    def close(self) -> list[str]:
        """Closes those that nobody wanted, and says where they listened."""
        left, self._left = self._left, []
        names = [_shown(sock.getsockname()) for _, sock in left]
        for _, sock in left:
            sock.close()
        return names


def _fits(bound: object, wanted: object, called_so: bool) -> bool:
    if not isinstance(bound, tuple) or not isinstance(wanted, tuple):
        return bound == wanted
    return bool(bound[:2] == wanted[:2] or (bound[0] == wanted[0] and wanted[1] == 0 and called_so))


def _shown(address: object) -> str:
    if isinstance(address, tuple):
        return joined(address[0], address[1])
    return f"unix:{address}"


def joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Listening:
    """The sockets of one address: a host and a port, or the path of a unix socket.

    A name such as localhost may stand for several addresses, and so for several sockets. `role` is what the
    sockets are for; a successor knows them by it where their port was left open.
    """

    def __init__(self, host: str, port: int, path: str = "", role: str = "listener") -> None:
        self.role = role
        self.host = host
        self.port = port
        self.path = path
        self.sockets: list[socket.socket] = []
        self._file: tuple[int, int] | None = None  # device and inode of a unix socket that we have made

    @property
    def name(self) -> str:
        """The address, with the port that port 0 has become."""
        if self.path:
            return f"unix:{self.path}"
        port = self.sockets[0].getsockname()[1] if self.sockets else self.port
        return joined(self.host, port)

    @property
    def called(self) -> str:
        """How the sockets are called when they are passed on."""
        return self.role if self.port or self.path else f"{self.role}-on-any-port"

    async def bind(self, inherited: Inherited) -> None:
        """Takes the address, without listening yet. Raises OSError where it can't be had."""
        try:
            if self.path:
                self._bind_path(inherited)
            else:
                await self._bind_host(inherited)
        except OSError:
            self.close()
            raise

    def listen(self) -> None:
        """From now on connections can be made; they wait to be accepted. Raises OSError."""
        for sock in self.sockets:
            sock.listen(BACKLOG)

    def close(self, keep_file: bool = False) -> None:
        """Lets go of the address. A socket's file goes too, if it is still ours and isn't to be kept."""
        if self._file is not None and not keep_file and self._file == _identity(self.path):
            os.unlink(self.path)
        self._file = None
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()

    # --- host and port ---

    async def _bind_host(self, inherited: Inherited) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        failed: OSError | None = None
        port = self.port
        for family, address in dict.fromkeys((each[0], each[4]) for each in found):
            place = (address[0], port, *address[2:])
            try:
                sock = inherited.take(family, place, self.called) or _bound(family, place)
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
                failed = error  # localhost is ::1 too, even where there is no IPv6
                continue
            self.sockets.append(sock)
            port = sock.getsockname()[1]
        if failed is not None and not self.sockets:
            raise failed

    # --- unix sockets ---

    def _bind_path(self, inherited: Inherited) -> None:
        sock = inherited.take(socket.AF_UNIX, self.path)
        if sock is None:
            _make_way(self.path)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sockets.append(sock)
            sock.bind(self.path)
            self._file = _identity(self.path)
            # As open as a port on loopback is. Who it is for is decided by the directory.
            os.chmod(self.path, 0o666)
        else:
            self.sockets.append(sock)
        sock.setblocking(False)


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _make_way(path: str) -> None:
    """Removes the file of a socket on which nobody listens any more. Raises OSError where that isn't so."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)  # where its backlog is full, somebody lives there too
            sock.connect(path)
    except BlockingIOError:
        pass
    except _NOBODY_THERE:
        if _identity(path) is not None:
            os.unlink(path)
        return
    raise OSError(errno.EADDRINUSE, "somebody listens there")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
