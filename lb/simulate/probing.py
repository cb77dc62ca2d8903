"""The health check of a world: asks each machine from time to time, and tells the pools."""

from __future__ import annotations

from collections.abc import Sequence

from lb.core.pool import Pool
from lb.simulate.clock import Event, VirtualClock
from lb.simulate.machine import Machine
from lb.simulate.scenario import Probes


class Probing:
    """Probes are spread over the interval, as in the data plane. All pools hear of it at once."""

    def __init__(
        self, probes: Probes, machines: Sequence[Machine], pools: Sequence[Pool], clock: VirtualClock
    ) -> None:
        self._probes = probes
        self._pools = pools
        self._clock = clock
        self._in_a_row: dict[str, int] = {}  # good probes, or bad ones as a negative number
        for number, machine in enumerate(machines):
            clock.at(probes.interval * (number + 1) / len(machines), self._probe, machine)

    def _probe(self, event: Event) -> None:
        now, machine, probes = event[0], event[3], self._probes
        self._clock.at(now + probes.interval, self._probe, machine)
        before = self._in_a_row.get(machine.id, 0)
        if machine.answers(now, probes.timeout):
            self._in_a_row[machine.id] = good = max(0, before) + 1
            if good >= probes.rise:
                self._set_health(machine.id, True)
        else:
            self._in_a_row[machine.id] = bad = min(0, before) - 1
            if -bad >= probes.fall:
                self._set_health(machine.id, False)

    def _set_health(self, name: str, up: bool) -> None:
        for pool in self._pools:
            backend = pool.backends.get(name)
            if backend is not None:
                pool.set_health(backend, up)
