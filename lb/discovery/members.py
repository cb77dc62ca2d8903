"""The members of a pool: what its configuration and its sources name, as one set, in the running pool.

The first change is applied at once; what follows within a moment is applied together, at its end. So a
backend that comes is there without delay, one that flaps takes little of the time, and the hundred changes
of a deployment cost a few updates. Where updates take long, since there are thousands of backends, or come
without an end, the moment grows with them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from time import thread_time
from typing import Protocol

from lb.core.backend import Backend, BackendSpec
from lb.core.pool import Pool
from lb.core.source import SourceState
from lb.core.turnover import Turnover
from lb.discovery.base import Pace
from lb.discovery.union import Union
from lb.discovery.watch import Watch, counted

log = logging.getLogger("lb.discovery")

MOMENT = 0.02  # seconds in which changes are gathered at least, behind one that was applied
KNOWN_BY = 5.0  # seconds that newcomers have for a good probe, where nobody else could serve without them
NAMED = 5  # so many backends are named in a line of the log


class Probes(Protocol):
    """The health checks of a pool."""

    def sync(self) -> None:
        """The pool's set has changed."""

    async def find_well(
        self, backends: Sequence[Backend], within: float, enough: int = 0
    ) -> list[Backend]: ...


class Members:
    """The members of one pool. `probes` are its health checks, if it has any."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.static: Sequence[BackendSpec] = ()
        self.watches: Sequence[Watch] = ()
        self.probes: Probes | None = None
        self.origins: Mapping[str, str] = {}
        self._union = Union()
        self._pace = Pace()
        self._gathering: asyncio.TimerHandle | None = None
        self._more = False  # whether anything came while changes are gathered, or newcomers asked
        self._asking: asyncio.Task[None] | None = None

    @property
    def states(self) -> list[SourceState]:
        return [watch.state for watch in self.watches]

    def adopt(self, static: Sequence[BackendSpec], watches: Sequence[Watch], probes: Probes | None) -> None:
        """Goes by these from now on, and at once. It is the caller's to start the probes, and to end watches
        that are no longer among them."""
        self._rest()
        for gone in self.watches:
            gone.on_set = lambda: None
        self.static, self.watches, self.probes = static, watches, probes
        for watch in watches:
            watch.on_set = self.changed
        specs, self.origins = self._merged()
        self._update(specs)

    def close(self) -> None:
        """Changes the pool no more."""
        self._rest()
        for watch in self.watches:
            watch.on_set = lambda: None

    def _rest(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        self._more = False

    # --- changes ---

    def changed(self) -> None:
        """A source has another set."""
        if self._gathering is None and self._asking is None:
            self._apply()
        else:
            self._more = True

    def _apply(self) -> None:
        began = thread_time()
        specs, origins = self._merged()
        newcomers = self._to_ask_first(specs)
        if newcomers:
            self._asking = asyncio.create_task(self._ask_first(newcomers))
            return
        self.origins = origins
        self._update(specs)
        self._probe()
        self._gather(thread_time() - began)

    def _gather(self, took: float) -> None:
        loop = asyncio.get_running_loop()
        self._gathering = loop.call_later(max(MOMENT, self._pace.rest_after(took)), self._on_gathered)

    def _on_gathered(self) -> None:
        self._gathering = None
        if self._more:
            self._more = False
            self._apply()

    def _merged(self) -> tuple[list[BackendSpec], dict[str, str]]:
        specs = self._union.of(self.static, [(watch.state.name, watch.specs) for watch in self.watches])
        return specs, self._union.origins.copy()

    def _to_ask_first(self, specs: Sequence[BackendSpec]) -> list[Backend]:
        """The new ones, where a health check has to find one of them well before anyone could serve, and
        those who are to leave still can."""
        pool = self.pool
        if self.probes is None or not pool.eligible:
            return []
        fresh = []
        for spec in specs:
            known = pool.backends.get(spec.id)
            if known is None or known.spec.address != spec.address:
                fresh.append(Backend(spec))
            elif known.candidate_of is pool:
                return []
        return fresh

    async def _ask_first(self, newcomers: Sequence[Backend]) -> None:
        """Those who leave serve until one of the new ones is found well, or none is in time."""
        assert self.probes is not None
        well = await self.probes.find_well(newcomers, KNOWN_BY, enough=1)
        self._asking = None
        self._more = False
        began = thread_time()
        specs, self.origins = self._merged()
        self._update(specs)
        for each in well:
            backend = self.pool.backends.get(each.id)
            if backend is not None and not backend.judged and backend.spec == each.spec:
                self.pool.set_health(backend, True)
        self._probe()
        self._gather(thread_time() - began)

    def _probe(self) -> None:
        if self.probes is not None:
            self.probes.sync()

    def _update(self, specs: list[BackendSpec]) -> None:
        turnover = self.pool.update(specs)
        if any(turnover):
            self._tell(turnover)

    def _tell(self, turnover: Turnover) -> None:
        parts = [
            f"{_named(names)} {what}"
            for names, what in zip(turnover, ("joined", "left", "changed"), strict=True)
            if names
        ]
        there = counted(len(self.pool.backends))
        log.info("pool %s: %s; %s", self.pool.name, ", ".join(parts), there)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
