"""A worker process: it has the connections and the requests, and a supervisor does the rest (lb/fleet.py).

    python -m lb.worker CHANNEL WAY

To the supervisor it is a program (lb/control/workplace.py). Inside it is the same app as ever, but for what
the supervisor has once for all: no admin API, no probes, no backends but those that it is told of, and
sockets that it is given.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

import uvloop

from lb.app import App
from lb.config import Address, Config, ConfigError, loads
from lb.config import Pool as PoolConfig
from lb.config import Route as RouteConfig
from lb.control.all_records import OwnRecords, answer_for
from lb.control.channel import Answer
from lb.control.messages import Changes, Configure, Counts, Membership, Message, Reopen, Turnover
from lb.control.mirror import Follower
from lb.control.shared_memory import SharedTable
from lb.control.sums import INTERVAL, Tally
from lb.control.workplace import Sockets, arguments, work
from lb.core.backend import Backend
from lb.process import allow_many_files, calm_the_collector, keep_freed_memory, take_short_turns
from lb.proxy.sockets import BACKLOG, Inherited, Listening
from lb.running.parts import Prepared, connections
from lb.running.prepare import prepare

Given = dict[str, list[socket.socket]]  # by the name of the listener


class GivenListening(Listening):
    """The sockets of an address, which the supervisor has bound."""

    def __init__(self, address: Address, given: Given) -> None:
        super().__init__(address.host, address.port, address.path)
        self._given = given

    async def bind(self, inherited: Inherited) -> None:
        """Takes them. Raises OSError where there are none."""
        try:
            self.sockets = self._given.pop(self.name)
        except KeyError:
            raise OSError(errno.EADDRNOTAVAIL, "the supervisor has no socket there") from None


class WorkerApp(App):
    """The part of the app that a worker has. `follow` is called when other pools or rules hold, before anyone
    is served by them."""

    probes = False
    discovers = False

    def __init__(
        self, config: Config, shared: SharedTable, given: Given, follow: Callable[[], object]
    ) -> None:
        super().__init__(config, asyncio.get_running_loop(), files=allow_many_files())
        self.turns = shared.descriptor
        self.given = given
        self.follower = Follower(self.pools, shared.table)
        self.tally = Tally(lambda: self.pools, self.clients, _gauges, lambda pool: len(pool.waiting))
        self._follow = follow

    def listening(self, address: Address) -> Listening:
        return GivenListening(address, self.given)

    async def change(self, config: Config, given: Given) -> None:
        """Goes by another configuration. Raises CannotStart, and then nothing has changed."""
        async with self.changing:
            self.given = given
            new = await prepare(self, config)
            self._apply(new)
            await self._accept()

    def _apply(self, new: Prepared) -> None:
        super()._apply(new)
        for pool in self.pools.values():
            pool.on_added = self.follower.on_added
        self.follower.pools = self.pools
        self._follow()

    async def finish(self, timeout: float | None) -> None:
        """Takes nothing new, and ends what is under way within so many seconds (None: as configured)."""
        if timeout is not None:
            drain = self.config.drain.model_copy(update={"timeout": timeout})
            self.config = self.config.model_copy(update={"drain": drain})
        self.draining = True
        await self._finish()

    @property
    def own_records(self) -> OwnRecords | None:
        return None if self.records is None else OwnRecords(self.records, self.epoch)


def _gauges(backend: Backend) -> dict[str, int]:
    ejection = backend.ejection
    return {**connections(backend), "ejected": int(ejection is not None and ejection.closed)}


class WorkerProgram:
    """What a worker does with what it is told."""

    def __init__(self) -> None:
        self.app: WorkerApp | None = None
        self._given: Given = {}
        self._configure: Configure | None = None
        self._held: list[Membership | Changes | Turnover] | None = (
            None  # for the next configuration; None: there is none
        )
        self._lent: dict[int, asyncio.Task[list[asyncio.Server]]] = {}

    @property
    def pause(self) -> float:
        return INTERVAL if self.app is None else self.app.tally.pause

    # --- being told ---

    def hello(self, shared: SharedTable) -> None:
        self._shared = shared

    def listeners(self, sockets: Sockets) -> None:
        _close(self._given)
        self._given = _by_listener(sockets)

    def heard(self, message: Message) -> None:
        match message:
            case Configure():
                self._configure = message
                self._held = []
            case Membership() | Changes() | Turnover():
                if self._held is not None:
                    self._held.append(message)
                elif self.app is not None:
                    self.app.follower.follow(message)
            case Reopen():
                if self.app is not None:
                    self.app.reopen_log()

    def answer(self, message: Message) -> Answer:
        return answer_for(None if self.app is None else self.app.own_records, message)

    def counts(self) -> Iterable[Counts]:
        return () if self.app is None else self.app.tally.take()

    # --- beginning, and beginning anew ---

    async def begin(self) -> None:
        assert self._configure is not None
        given, self._given = self._given, {}
        try:
            config = _as_told(self._configure, self._shared.rows - 1)
            if self.app is None:
                app = WorkerApp(config, self._shared, given, self._follow_held)
                self.app = app
                try:
                    await app.start()
                except BaseException:
                    self.app = None
                    raise
                calm_the_collector()
                keep_freed_memory()
                take_short_turns()
            else:
                await self.app.change(config, given)
        except ConfigError as error:  # which was good for the supervisor
            raise ValueError("; ".join(map(str, error.problems))) from None
        finally:
            _close(given)  # those of listeners that were there already
            self._follow_held()

    def _follow_held(self) -> None:
        held, self._held = self._held, None
        for message in held or ():
            if self.app is not None:
                self.app.follower.follow(message)

    # --- for a seat without a worker ---

    def lend(self, seat: int, sockets: Sockets) -> None:
        self._lent[seat] = asyncio.ensure_future(self._accept_on(_by_listener(sockets)))

    def take_back(self, seat: int) -> None:
        accepting = self._lent.pop(seat, None)
        if accepting is not None:
            accepting.add_done_callback(_accept_no_more)

    async def _accept_on(self, given: Given) -> list[asyncio.Server]:
        """Takes what comes to these sockets for what comes to the listeners of the same names."""
        listeners = {} if self.app is None else {each.name: each for each in self.app.listeners}
        servers = []
        loop = asyncio.get_running_loop()
        for name, sockets in given.items():
            for each in sockets:
                if name in listeners:
                    accept = cast(Callable[[], asyncio.BaseProtocol], listeners[name].connection)
                    servers.append(await loop.create_server(accept, sock=each, backlog=BACKLOG))
                else:
                    each.close()
        return servers

    # --- the end ---

    async def drain(self, timeout: float | None) -> None:
        for seat in list(self._lent):
            self.take_back(seat)
        if self.app is not None:
            await self.app.finish(timeout)

    async def close(self) -> None:
        if self.app is not None:
            await self.app.close()


def _as_told(message: Configure, count: int) -> Config:
    """The configuration, without what is the supervisor's business alone, with the ports that it got, and
    with the part of each limit that falls to one of so many workers."""
    config = loads(message.text, message.file, Path(message.file).parent)
    listeners = [
        each.model_copy(update={"bind": _on_port_of(each.bind, name)})
        for each, name in zip(config.listeners, message.listeners, strict=True)
    ]
    return config.model_copy(
        update={
            "admin": None,
            "max_connections": _part(config.max_connections, count),
            "listeners": tuple(listeners),
            "routes": tuple(_route(each, count) for each in config.routes),
            "pools": {name: _pool(each, count) for name, each in config.pools.items()},
        }
    )


def _part(limit: int | None, count: int) -> int | None:
    return None if limit is None else max(1, limit // count)


def _pool(config: PoolConfig, count: int) -> PoolConfig:
    """What is said of each backend holds for all workers together anyway: they see what the others have."""
    limits, keepalive = config.limits, config.keepalive
    changed: dict[str, object] = {
        "backends": (),
        "limits": limits.model_copy(
            update={
                "requests": _part(limits.requests, count),
                "connections": _part(limits.connections, count),
                "queue": -(-limits.queue // count),
            }
        ),
    }
    if keepalive is not None and limits.connections_per_backend is not None:
        kept = min(keepalive.connections, max(1, limits.connections_per_backend // count))
        changed["keepalive"] = keepalive.model_copy(update={"connections": kept})
    return config.model_copy(update=changed)


def _route(config: RouteConfig, count: int) -> RouteConfig:
    """A rate for all clients together is divided. One for each isn't: a client with one connection has one
    worker, and would get but a part of its rate."""
    limit = config.rate_limit
    if limit is None or limit.key != "route":
        return config
    part = {"per": limit.per * count, "burst": max(1, limit.burst // count)}
    return config.model_copy(update={"rate_limit": limit.model_copy(update=part)})


def _on_port_of(bind: Address, name: str) -> Address:
    return bind if bind.path else Address(bind.host, int(name.rpartition(":")[2]))


def _by_listener(sockets: Sockets) -> Given:
    """A name may stand for several addresses: the supervisor says `0 localhost:80` and `1 localhost:80`."""
    given: Given = {}
    for name, each in sockets.items():
        each.setblocking(False)
        given.setdefault(name.partition(" ")[2], []).append(each)
    return given


def _close(given: Mapping[str, list[socket.socket]]) -> None:
    for sockets in given.values():
        for each in sockets:
            each.close()


def _accept_no_more(accepting: asyncio.Task[list[asyncio.Server]]) -> None:
    for server in accepting.result():
        server.close()


def command() -> list[str]:
    """How a worker is started: as ourselves, and with nothing on the path for modules that we don't have."""
    here = [] if os.getcwd() in sys.path else ["-P"]
    return [sys.executable, *here, "-m", "lb.worker"]


def main() -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s",
    )
    uvloop.run(work(WorkerProgram(), *arguments(sys.argv)))


if __name__ == "__main__":
    main()
