"""Who is in the pools, and when."""

from __future__ import annotations

from collections.abc import Sequence

from lb.core.backend import BackendSpec
from lb.core.load_table import CELL, LoadTable
from lb.core.pool import Pool
from lb.simulate.clock import VirtualClock
from lb.simulate.machine import Machine
from lb.simulate.scenario import Scenario


class Presence:
    """Machines come and go as the scenario says. One that comes again is another backend: it has a new place
    in the load table of the workers."""

    def __init__(self, scenario: Scenario, machines: Sequence[Machine]) -> None:
        self._scenario = scenario
        self._machines = machines
        self._by_id = {machine.id: machine for machine in machines}
        self._present: set[str] = set()
        self._place: dict[str, int] = {}
        self._places = 0
        self._memory = memoryview(b"")

    def machine(self, name: str) -> Machine:
        return self._by_id[name]

    def table(self, row: int) -> LoadTable:
        """The load table of all workers, as one of them sees it."""
        workers = self._scenario.workers
        if not self._memory:
            places = sum(len(machine.server.presence) for machine in self._machines)
            self._memory = memoryview(bytearray(CELL * places * workers))
        return LoadTable(self._memory, workers, row)

    def place(self, name: str) -> int:
        """Where a machine that is present stands in it."""
        return self._place[name]

    def follow(self, pools: Sequence[Pool], clock: VirtualClock) -> None:
        """Has the pools know who is present, now and whenever that changes."""
        edges = {edge for machine in self._machines for span in machine.server.presence for edge in span}
        self._update(pools, 0.0)
        for at in sorted(edges):
            if 0.0 < at <= self._scenario.duration:
                clock.at(at, lambda event: self._update(pools, event[0]))

    def _update(self, pools: Sequence[Pool], now: float) -> None:
        present = [
            (number, machine.server)
            for number, machine in enumerate(self._machines)
            if any(start <= now < end for start, end in machine.server.presence)
        ]
        for _, server in present:
            if server.id not in self._present:
                self._place[server.id] = self._places
                self._places += 1
        self._present = {server.id for _, server in present}
        specs = [
            BackendSpec(server.id, "simulated", number, server.weight, server.tier, zone=server.zone)
            for number, server in present
        ]
        for pool in pools:
            pool.update(specs)
