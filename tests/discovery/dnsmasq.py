"""A real name server: dnsmasq, which is told what to say, and can be told otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from tests.tools import need


class Dnsmasq:
    """A dnsmasq at a port of 127.0.0.1. It is down until it is told something."""

    def __init__(self, directory: Path) -> None:
        self._program = need("dnsmasq", "dnsmasq-base")
        self._config = directory / "dnsmasq.conf"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])

    async def say(self, *records: str) -> None:
        """Knows these records from now on, in the words of its configuration, and no others."""
        await self.stop()
        lines = [
            f"port={self.port}",
            *("listen-address=127.0.0.1", "bind-interfaces", "no-resolv", "no-hosts", "keep-in-foreground"),
            *("user=", "group=", "pid-file=", "log-facility=-", "local=/test/", *records),
        ]
        self._config.write_text("\n".join(lines) + "\n")
        self._start()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.01)

    def _start(self) -> None:
        command = [self._program, f"--conf-file={self._config}"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def freeze(self) -> None:
        """It is there, and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    async def stop(self) -> None:
        """It is down."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None


@contextlib.asynccontextmanager
async def dnsmasq(directory: Path) -> AsyncIterator[Dnsmasq]:
    server = Dnsmasq(directory)
    try:
        yield server
    finally:
        await server.stop()
