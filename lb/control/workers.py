"""Workers as their supervisor sees them: processes, each at its seat."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

from lb.control.channel import Channel, hand_over
from lb.control.messages import Message

log = logging.getLogger("lb.workers")

QUICK = 10.0  # seconds: who dies sooner than this after its predecessor has a cause that stays
BACK_OFF = (0.5, 15.0)  # seconds: the first pause between two such deaths, doubled each time up to the second

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What workers leave to the supervisor. Until they do, these are blocked, or one in the first moments of a
worker would end it."""

TABLE = "load table"  # the name under which its descriptor is handed over


class Worker:
    """A process at its seat."""

    def __init__(self, seat: int, row: int, process: subprocess.Popen[bytes]) -> None:
        self.seat = seat
        self.row = row
        self.process = process
        self.pid = process.pid
        self.channel = Channel()
        self.way: socket.socket | None = None  # for descriptors
        self.ready = False
        self.greeted = False  # whether it knows what there is to know, and hears what comes
        self.ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Worker {self.seat}, process {self.pid}>"

    def kill(self) -> None:
        """Ends it without another word."""
        if not self.ended.is_set():
            self.process.kill()

    def give(self, sockets: dict[str, int], message: Message) -> None:
        """Hands descriptors over, and says what for."""
        if self.way is None or self.channel.lost:
            return
        try:
            hand_over(self.way, list(sockets), list(sockets.values()))
        except OSError as error:
            log.warning("worker %d (process %d) takes nothing any more: %s", self.seat, self.pid, error)
            return
        self.channel.tell(message)


class Seat:
    """A place to work: who has it, and how its workers have fared."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: Worker | None = None
        self.lent_to: Worker | None = None
        self.last_death = float("-inf")
        self.quick_deaths = 0
        self.filling: asyncio.Task[None] | None = None
        self.changing = asyncio.Lock()  # one new worker at a time

    @property
    def ready(self) -> bool:
        return self.worker is not None and self.worker.ready

    def bereaved(self) -> float:
        """Its worker has died: in how many seconds another one is to be started. At once the first time,
        later where the last death isn't long ago."""
        now = time.monotonic()
        self.quick_deaths = self.quick_deaths + 1 if now - self.last_death < QUICK else 0
        self.last_death = now
        first, most = BACK_OFF
        return min(most, first * 2 ** (self.quick_deaths - 1)) if self.quick_deaths else 0.0


def longer(pause: float) -> float:
    """The pause after one that wasn't long enough."""
    first, most = BACK_OFF
    return min(most, max(first, pause * 2))


def started(command: Sequence[str], *descriptors: int) -> subprocess.Popen[bytes]:
    """A process that inherits these descriptors, and is told their numbers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(
            [*command, *map(str, descriptors)], pass_fds=descriptors, stdin=subprocess.DEVNULL
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_in_words(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with {code}"
