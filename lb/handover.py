"""Listening sockets from one process to the next, so that no connection is refused in between.

Both ways speak systemd's protocol (sd_listen_fds(3)): the sockets are the descriptors from 3 on, LISTEN_FDS
says how many, LISTEN_PID whom they are for, LISTEN_FDNAMES what they are called. Either systemd has opened
them, or our predecessor passes on its own. What waits to be accepted belongs to the socket and not to a
process, so it is still there afterwards.

What our predecessor knows of backends that sources have named comes along too, as text in a file in memory:
the next process is to serve them also where a source says nothing just then.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import MutableMapping, Sequence

from lb.proxy.sockets import Inherited

log = logging.getLogger("lb")

FIRST = 3  # the first descriptor that is passed
READY_WITHIN = 30.0  # seconds that a successor has to become ready
_READY = "LB_READY_FD"  # in the environment: where a successor says that it is ready
_KNOWN = "LB_KNOWN_FD"  # and where it finds what its predecessor knows

# LISTEN_PID is known only in the new process, so it starts as this: puts the descriptors where they belong,
# and then becomes the balancer. First all are copied out of the way of where they go.
_BECOME = f"""
import fcntl, os, sys
given = [int(each) for each in sys.argv[1].split(",")]
copies = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, {FIRST} + len(given)) for each in given]
for each in given:
    os.close(each)
for place, each in enumerate(copies, {FIRST}):
    os.dup2(each, place)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class HandoverFailed(Exception):
    """There is no successor, and why."""


def inherited_sockets(environment: MutableMapping[str, str]) -> Inherited:
    """The listening sockets that were given to this process. Takes them out of the environment, so that no
    other process takes them for its own."""
    count = environment.pop("LISTEN_FDS", "")
    for_whom = environment.pop("LISTEN_PID", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if for_whom != str(os.getpid()) or not count.isdecimal():
        return Inherited()
    found = []
    for number in range(int(count)):
        sock = _listening(FIRST + number)
        if sock is not None:
            found.append((names[number] if number < len(names) else "", sock))
    return Inherited(found)


def _listening(descriptor: int) -> socket.socket | None:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        log.warning("descriptor %d, which was given to us, is no socket: %s", descriptor, error)
        if error.errno != errno.EBADF:
            os.close(descriptor)
        return None
    sock.set_inheritable(False)
    sock.setblocking(False)
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        log.warning("descriptor %d, which was given to us, is no socket that listens", descriptor)
        sock.close()
        return None
    return sock


class Predecessor:
    """The process that has started us to take its place, if one has. `known` is what it knew, as text."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self.known = _read_known(environment.pop(_KNOWN, ""))
        descriptor = environment.pop(_READY, "")
        self._pipe = int(descriptor) if descriptor.isdecimal() else -1
        if self._pipe >= 0:
            os.set_inheritable(self._pipe, False)

    def __bool__(self) -> bool:
        return self._pipe >= 0

    def ready(self) -> None:
        """Tells it that it may go."""
        try:
            os.write(self._pipe, b"1")
        except BrokenPipeError:
            pass  # it has gone already
        os.close(self._pipe)
        self._pipe = -1


def _read_known(descriptor: str) -> str:
    if not descriptor.isdecimal():
        return ""
    try:
        with open(int(descriptor), "rb") as stream:
            stream.seek(0)
            return stream.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        log.warning("what the process before this one knew can't be read: %s", error)
        return ""


class Successor:
    """A new process with the same arguments, which listens on the same sockets, and gets to know a text."""

    def __init__(self, sockets: Sequence[tuple[str, socket.socket]], known: str = "") -> None:
        """Raises OSError where it can't be started."""
        memory = os.memfd_create("lb-known")
        with open(memory, "wb", closefd=False) as stream:
            stream.write(known.encode())
        self._ready, pipe = os.pipe()
        os.set_blocking(self._ready, False)
        given = [*(sock.fileno() for _, sock in sockets), pipe, memory]
        names = ":".join(name for name, _ in sockets)
        environment = {
            **os.environ,
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": names,
            _READY: str(FIRST + len(sockets)),
            _KNOWN: str(FIRST + len(sockets) + 1),
        }
        become = [sys.executable, "-I", "-S", "-c", _BECOME, ",".join(map(str, given))]
        try:
            self._process = subprocess.Popen(
                [*become, sys.executable, *sys.orig_argv[1:]], env=environment, pass_fds=given
            )
        except OSError:
            os.close(self._ready)
            raise
        finally:
            os.close(pipe)
            os.close(memory)

    @property
    def process(self) -> int:
        """Its process ID."""
        return self._process.pid

    async def ready(self) -> None:
        """Waits until it accepts connections. Raises HandoverFailed if it ends before or takes too long;
        then it is no more."""
        loop = asyncio.get_running_loop()
        told = loop.create_future()

        def on_told() -> None:
            if not told.done():
                told.set_result(os.read(self._ready, 1))  # nothing where it has ended

        loop.add_reader(self._ready, on_told)
        try:
            if await asyncio.wait_for(told, READY_WITHIN):
                self._process.returncode = 0  # it is nobody's child from now on
                return
            reason = "it ended before it was ready"
        except TimeoutError:
            reason = f"it was not ready after {READY_WITHIN:g} s"
        except asyncio.CancelledError:
            self._kill()
            raise
        finally:
            loop.remove_reader(self._ready)
            os.close(self._ready)
        self._kill()
        code = await asyncio.to_thread(self._process.wait)
        if code >= 0:
            reason += f", with exit code {code}"
        raise HandoverFailed(reason)

    def _kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
