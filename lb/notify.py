"""What the service manager is told: that we are ready, reload, or stop.

systemd's protocol (sd_notify(3)): datagrams to a socket whose address is in NOTIFY_SOCKET. Without it nobody
wants to know.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping

log = logging.getLogger("lb")


class ServiceManager:
    """Who started us, if it wants to know how we are."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        self._tell("READY=1")

    def reloading(self) -> None:
        """`ready` is to follow."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def replaced_by(self, process: int) -> None:
        """Another process is the service now, and ready."""
        self._tell(f"MAINPID={process}\nREADY=1")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), self._address)
        except OSError as error:
            log.warning("the service manager can't be told %s: %s", text.partition("\n")[0], error)
