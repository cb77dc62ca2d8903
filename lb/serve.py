"""The process around a balancer: signals, the watched file, who started it, who follows it, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from lb.app import App
from lb.config import Config
from lb.handover import HandoverFailed, Predecessor, Successor, inherited_sockets
from lb.membership import known_of, known_to
from lb.notify import ServiceManager
from lb.process import allow_many_files, calm_the_collector, keep_freed_memory, take_short_turns
from lb.watch import LOOK, ConfigFile

log = logging.getLogger("lb")


async def serve(config: Config, file: ConfigFile, say: Callable[[str], None]) -> None:
    """Runs until SIGTERM or SIGINT, then drains; a second signal ends it at once. Raises CannotStart."""
    await Service(config, file, say).run()


class Service:
    """A balancer, and what the system tells it."""

    def __init__(self, config: Config, file: ConfigFile, say: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._file = file
        self._say = say
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._manager = ServiceManager(os.environ)
        self._predecessor = Predecessor(os.environ)
        self._successor = 0  # the ID of the process that has taken our place
        self.workers = len(os.sched_getaffinity(0)) if config.workers == "auto" else config.workers
        self.app = self._build(config)
        self.app.told = known_of(self._predecessor.known)

    def _build(self, config: Config) -> App:
        inherited, files = inherited_sockets(os.environ), allow_many_files()
        if self.workers == 1:
            return App(config, self._loop, self._file.load, inherited, files)
        from lb.fleet import Fleet  # seldom wanted

        return Fleet(config, self._loop, self._file, self.workers, inherited, files)

    async def run(self) -> None:
        """To the end."""
        self._heed_signals()
        await self.app.start()
        for unwanted in self.app.inherited.close():
            log.warning("the socket at %s, which was given to us, is closed: nothing listens there", unwanted)
        self._say_addresses()
        calm_the_collector()
        keep_freed_memory()
        take_short_turns()
        if self._predecessor:
            self._predecessor.ready()  # and it tells the manager
        else:
            self._manager.ready()
        self._begin(self._watch())
        await self._stop.wait()
        await self._drain()
        for task in self._tasks:
            task.cancel()
        await self.app.close()
        self._say("stopped")

    def _heed_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_end)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._loop.add_signal_handler(signal.SIGUSR1, self._on_rotation)
        self._loop.add_signal_handler(signal.SIGUSR2, self._on_upgrade)

    def _on_end(self) -> None:
        (self._at_once if self._stop.is_set() else self._stop).set()

    def _on_hangup(self) -> None:
        self._begin(self._reload())

    def _on_rotation(self) -> None:
        log.info("SIGUSR1: the access log is reopened")
        self.app.reopen_log()

    def _on_upgrade(self) -> None:
        if os.getpid() == 1:
            log.error("SIGUSR2: this is process 1 of a container, whose end would end the next one too")
        else:
            self._begin(self._hand_over())

    def _begin(self, work: Coroutine[Any, Any, object]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _say_addresses(self) -> None:
        for listener in self.app.listeners:
            scheme = "http" if listener.options.tls is None else "https"
            place = listener.name if listener.listening.path else f"{scheme}://{listener.name}"
            self._say(f"listening on {place}")
        if self.workers > 1:
            self._say(f"{self.workers} workers")
        if self.app.admin_listening is not None:
            self._say(f"admin on http://{self.app.admin_listening.name}")
        if self.app.registrar.listening is not None:
            self._say(f"registry on http://{self.app.registrar.listening.name}")

    async def _reload(self) -> None:
        self._manager.reloading()
        await self.app.reload()
        self.app.reopen_log()
        self._manager.ready()

    async def _hand_over(self) -> None:
        """Starts another process on our sockets, and goes when it is ready; or stays, if it never is."""
        async with self.app.changing:
            if self._stop.is_set():
                return
            log.info("SIGUSR2: starting the next process")
            try:
                successor = Successor(self.app.sockets(), known_to(self.app))
                await successor.ready()
            except (OSError, HandoverFailed) as error:
                log.error("the next process failed, and this one goes on: %s", error)
                return
            self._successor = successor.process
            self._manager.replaced_by(self._successor)
            self._stop.set()

    async def _watch(self) -> None:
        """Reloads where the file has changed. One that was wrong is tried again when it changes again."""
        while True:
            await asyncio.sleep(LOOK)
            if self.app.config.watch and await asyncio.to_thread(self._file.has_changed):
                await self._reload()

    async def _drain(self) -> None:
        drain = self.app.config.drain
        if self._successor:
            self._say(f"process {self._successor} has taken over; draining (at most {drain.timeout:g}s)")
            drained = self._loop.create_task(self.app.leave_to_successor())
        else:
            self._manager.stopping()
            self._say(f"draining (at most {drain.delay + drain.timeout:g}s; once more to stop at once)")
            drained = self._loop.create_task(self.app.drain())
        at_once = self._loop.create_task(self._at_once.wait())
        await asyncio.wait((drained, at_once), return_when=asyncio.FIRST_COMPLETED)
        for task in (drained, at_once):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
