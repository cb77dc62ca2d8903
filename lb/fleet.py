"""A running balancer of several processes: this one is the supervisor, and workers have the requests.

It is the same app as ever, but without a data plane: its pools are the ones that probes and the admin API
change, its counters the sums of what the workers count, and its listeners hold the sockets that the workers
accept on. See docs/workers.md.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from lb import __version__
from lb.app import App
from lb.build import CannotStart
from lb.config import Address, Config
from lb.control.all_records import AllRecords, Records
from lb.control.messages import Collect, Configure, Counts, Message, Reopen
from lb.control.mirror import Leader
from lb.control.ports import Port, spread
from lb.control.shared_memory import SharedTable
from lb.control.state import ReloadResult
from lb.control.sums import Sums
from lb.control.supervisor import Supervisor, WorkerFailed
from lb.control.workers import Worker
from lb.core.backend import Ejection
from lb.core.load_table import Places
from lb.core.pool import Pool
from lb.observe.metrics import LbCollector
from lb.proxy.listener import Listener
from lb.proxy.sockets import Inherited, Listening
from lb.running.parts import Prepared
from lb.watch import ConfigFile
from lb.worker import command

if TYPE_CHECKING:
    from lb.control.admin import AdminServer

log = logging.getLogger("lb")

PATIENCE = 0.5  # seconds that workers have to say what they have counted, where someone waits for it
PART = 0.02  # of the processor's time at most goes into looking for news to tell the workers


class Seats(Listening):
    """The sockets of one address, for each worker its own where that can be."""

    def __init__(self, address: Address, seats: int) -> None:
        super().__init__(address.host, address.port, address.path)
        self.ports: list[Port] = []
        self._seats = seats

    async def bind(self, inherited: Inherited) -> None:
        await super().bind(inherited)
        for number, first in enumerate(list(self.sockets)):
            there: list[socket.socket] = []
            while 1 + len(there) < self._seats:
                sock = inherited.take(first.family, first.getsockname())
                if sock is None:
                    break
                there.append(sock)
                self.sockets.append(sock)
            try:
                sockets = spread(first, self._seats, there)
            except OSError:
                if not inherited.taken:
                    self.close()
                    raise
                sockets = [first]  # who bound it, maybe another user, lets nobody bind beside it
            self.sockets += sockets[1 + len(there) :]
            self.ports.append(Port(f"{number} {self.name}", sockets))


class Fleet(App):
    """A running balancer, as its supervisor sees it; and whose the workers are (lb/control/supervisor.py)."""

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        file: ConfigFile,
        count: int,
        inherited: Inherited | None = None,
        files: int = 1024,
    ) -> None:
        super().__init__(config, loop, file.load, inherited, files * count)
        self.count = count
        self.sums = Sums(lambda: self.pools, self.clients)
        self._file = file
        self._text = ""  # of the configuration that holds
        self._shared = SharedTable.make(count + 1)
        self._places = Places(self._shared.table)
        self._leaders: dict[str, Leader] = {}
        self._news: set[Leader] = set()  # of whose pools something has changed
        self._news_took = 0.0  # seconds that it took to tell them the last time
        self._telling: asyncio.TimerHandle | None = None
        self._lagging: list[str] = []  # why workers could not follow the last reload
        self._freeing: asyncio.Task[None] | None = None
        self._supervisor = Supervisor(command(), count, self._shared, (), self)
        self._started = False
        state = self.admin_state
        state.collect = self._collect
        state.queued = self.sums.queued
        state.metrics = LbCollector(
            lambda: self.pools,
            self.clients,
            self.reloads,
            __version__,
            self.sums.connections,
            self.sums.queued,
            lambda: self.members,
            self.certificates,
        )

    # --- what workers say and have to know ---

    def greeting(self) -> Iterator[Message]:
        listeners = [listener.name for listener in self.listeners]
        yield Configure(str(self._file.path), self._text, listeners)
        for leader in self._leaders.values():
            yield leader.whole()

    def heard(self, worker: Worker, message: Message) -> None:
        if isinstance(message, Counts):
            self.sums.add(worker, message)
            for (name, backend_id, _), fresh in message.backends:
                if "ejected" in fresh.get("gauges", ()) and name in self.pools:
                    self._show_ejection(self.pools[name], backend_id)

    def gone(self, worker: Worker) -> None:
        self.sums.forget(worker)
        for pool in self.pools.values():
            for backend in pool.backends.values():
                if backend.ejection is not None:
                    self._show_ejection(pool, backend.id)

    def _show_ejection(self, pool: Pool, backend_id: str) -> None:
        """Each worker ejects for itself. A backend is shown as ejected when it is for all of them."""
        backend = pool.backends.get(backend_id)
        if backend is None:
            return
        count = self.sums.gauges(backend)["ejected"]
        backend.ejection = None
        if count:
            backend.ejection = Ejection(f"ejected (by {count} of {self.count} workers)", 0.0)
            backend.ejection.closed = count >= self.count
        pool.refresh()

    async def _collect(self) -> None:
        self._tell_news()
        await self._supervisor.ask(Collect(), PATIENCE)

    def _on_changed(self, leader: Leader) -> None:
        """Tells the workers soon, and then of all that has changed by then. With very many backends looking
        takes its time, and so it is done less often."""
        self._news.add(leader)
        if self._telling is None:
            self._telling = self._loop.call_later(self._news_took / PART, self._tell_news)

    def _tell_news(self) -> None:
        began = time.thread_time()
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        leaders, self._news = self._news, set()
        for leader in leaders:
            news = leader.news()
            if news is not None:
                self._supervisor.tell(news)
        self._news_took = time.thread_time() - began

    # --- running ---

    def listening(self, address: Address) -> Listening:
        return Seats(address, self.count)

    async def _accept(self, *servers: AdminServer | None) -> None:
        """Has the workers accept at the listeners that there are, and at no other ones."""
        ports = [
            port
            for listener in self.listeners
            if isinstance(listener.listening, Seats)
            for port in listener.listening.ports
        ]
        self._lagging = []
        try:
            if self._started:
                await self._supervisor.renew(ports, self.config.drain.timeout)
            else:
                self._supervisor.ports = ports
                await self._supervisor.start()
                self._started = True
        except WorkerFailed as error:
            if not self._started:
                await self.close()
                raise CannotStart(str(error)) from error
            self._lagging = [f"{error}; its predecessor goes on with the old configuration"]
        await self._serve(*servers)

    async def _reload(self) -> ReloadResult:
        result = await super()._reload()
        return replace(result, kept=[*result.kept, *self._lagging])

    def reopen_log(self) -> None:
        super().reopen_log()
        self._supervisor.tell(Reopen())

    async def _finish(self) -> None:
        for listener in self.listeners:
            listener.close()
        await self._supervisor.drain(self.config.drain.timeout)

    async def close(self) -> None:
        for listener in self.listeners:
            listener.close()
        await self._supervisor.close()
        await super().close()
        if self._telling is not None:
            self._telling.cancel()

    def _look(self) -> None:
        super()._look()
        self.sums.prune()
        if self._freeing is None or self._freeing.done():
            self._freeing = self._loop.create_task(self._free_places())

    async def _free_places(self) -> None:
        """Backends that have left have a place in the load table until every worker has heard of it."""
        left = self._places.left()
        if left and await self._supervisor.all_heard(PATIENCE):
            self._places.free(left)

    # --- another configuration ---

    def _apply(self, new: Prepared) -> None:
        super()._apply(new)
        self._text = self._file.text
        for name, pool in self.pools.items():
            if pool.rules.outliers is not None:  # workers judge by what they see
                pool.configure(replace(pool.rules, outliers=None))
            leader = self._leaders.get(name)
            if leader is None or leader.pool is not pool:
                self._lead(name, pool)
        for name in self._leaders.keys() - self.pools.keys():
            self._leaders.pop(name).close()

    def _lead(self, name: str, pool: Pool) -> None:
        if name in self._leaders:
            self._leaders[name].close()
        leader = self._leaders[name] = Leader(pool, self._places)
        pool.on_changed = lambda: self._on_changed(leader)
        self._on_changed(leader)

    def records_to_show(self) -> Records | None:
        size = self.config.request_records
        return AllRecords(self._supervisor.ask, size * self.count) if size else None

    def has_left(self, part: Listener | Pool) -> bool:
        if isinstance(part, Listener) and (
            self.changing.locked() or (part.successor is None and self.sums.gauges(part.stats)["connections"])
        ):
            return False
        return super().has_left(part)
