"""The world that a policy is tried in: clients, workers with a pool each, machines. A request is one event.

world = World(scenario, Contestant("p2c", PowerOfTwo), seed=1)
world.run()
world.latencies      # of the requests that went well, in seconds
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappush
from random import Random
from typing import Any

from lb.balance import Balancer
from lb.core.backend import Backend, BackendSpec
from lb.core.failure import AT_LIMIT, NEVER, QUEUE_TIMEOUT, RESPONSE_TIMEOUT, Failure
from lb.core.load_table import CELL, LoadTable
from lb.core.pool import Pool
from lb.simulate.arrivals import gaps
from lb.simulate.clock import Event, VirtualClock
from lb.simulate.machine import Machine
from lb.simulate.scenario import Clients, Scenario

OK = 200
ANSWER = 1024
"""Bytes of each answer, for policies that look at them."""

STEPS = 100
"""Progress is told so many times a run."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A policy with its options, and what it is called in the table."""

    label: str
    policy: type[Balancer]
    options: Mapping[str, Any] = field(default_factory=dict)


class CannotRun(Exception):
    """A policy can't be made."""


class World:
    """One run of one policy."""

    def __init__(self, scenario: Scenario, contestant: Contestant, seed: int = 1) -> None:
        self.scenario = scenario
        self.contestant = contestant
        self.clock = VirtualClock()
        self.latencies: list[float] = []
        self.failures: dict[str, int] = {}  # by name, or by status where the backend has answered
        horizon = scenario.duration
        self.machines = [Machine(server, f"{seed}/machine", horizon) for server in scenario.servers]
        self._by_id = {machine.id: machine for machine in self.machines}
        self._heap, self._next_number = self.clock.heap, self.clock.next_number
        self._timeout, self._warm_up = scenario.timeout, scenario.warm_up
        self._retries = scenario.rules.retries
        self._random = Random(f"{seed}/worker").random
        self._place: dict[str, int] = {}
        self._places = 0
        self._bad_probes: dict[str, int] = {}
        self._good_probes: dict[str, int] = {}
        self.pools = [self._pool(number, seed) for number in range(scenario.workers)]
        self._only_pool = self.pools[0] if len(self.pools) == 1 else None
        self._again: Callable[[float], object] | None = None  # what a client does when it has its answer
        self._people(seed)
        self._membership()
        self._probing()
        self.clock.at(scenario.warm_up, self._begin_counting)

    # --- before it begins ---

    def _pool(self, number: int, seed: int) -> Pool:
        scenario, contestant = self.scenario, self.contestant
        rng = Random(f"{seed}/policy/{number}")
        try:
            policy = contestant.policy(self.clock, rng, **contestant.options)
        except Exception as error:
            raise CannotRun(f"{contestant.label} can't be made: {type(error).__name__}: {error}") from error
        rng = Random(f"{seed}/pool/{number}")
        pool = Pool(scenario.name, policy, self.clock, rules=scenario.rules, rng=rng)
        table = self._table(number) if scenario.shared else None

        def added(backend: Backend) -> None:
            backend.upstream = self._by_id[backend.id]
            backend.duration.observe = _forget  # nobody reads it here
            if table is not None:
                backend.shared, backend.place = table, self._place[backend.id]

        pool.on_added = added
        return pool

    def _table(self, row: int) -> LoadTable:
        if row == 0:
            places = sum(len(server.presence) for server in self.scenario.servers)
            self._memory = memoryview(bytearray(CELL * places * self.scenario.workers))
        return LoadTable(self._memory, self.scenario.workers, row)

    def _people(self, seed: int) -> None:
        arrivals, rng = self.scenario.arrivals, Random(f"{seed}/arrivals")
        if not isinstance(arrivals, Clients):
            self._gap = gaps(arrivals, rng)
            self.clock.at(self._gap(0.0), self._arrive)
            return
        think = arrivals.think.draw_from(rng)

        def again(now: float) -> None:
            at = now + think()
            if at < self.scenario.duration:
                heappush(self._heap, (at, self._next_number(), self._come_back))

        self._again = again
        for _ in range(arrivals.count):
            again(0.0)

    def _membership(self) -> None:
        edges = {edge for machine in self.machines for span in machine.server.presence for edge in span}
        self._present: set[str] = set()
        self._change_members(0.0)
        for at in sorted(edges):
            if 0.0 < at <= self.scenario.duration:
                self.clock.at(at, lambda event: self._change_members(event[0]))

    def _change_members(self, now: float) -> None:
        present = [
            (number, machine.server)
            for number, machine in enumerate(self.machines)
            if any(start <= now < end for start, end in machine.server.presence)
        ]
        for _, server in present:
            if server.id not in self._present:
                self._place[server.id] = self._places
                self._places += 1
        self._present = {server.id for _, server in present}
        specs = [
            BackendSpec(server.id, "simulated", number, server.weight, server.tier)
            for number, server in present
        ]
        for pool in self.pools:
            pool.update(specs)

    def _probing(self) -> None:
        probes = self.scenario.probes
        if probes is not None:
            for number, machine in enumerate(self.machines):
                first = probes.interval * (number + 1) / len(self.machines)
                self.clock.at(first, self._probe, machine)

    def _begin_counting(self, event: Event) -> None:
        for machine in self.machines:
            machine.taken = 0

    # --- the run ---

    def run(self, told: Callable[[float], object] = lambda share: None) -> None:
        """From the first request to the end of the last. `told` hears how far it is, from 0 to 1."""
        for step in range(1, STEPS + 1):
            self.clock.run(self.scenario.duration * step / STEPS)
            told(step / STEPS)
        while any(pool.in_flight or len(pool.waiting) for pool in self.pools) and self.clock.step():
            pass

    def _arrive(self, event: Event) -> None:
        now = event[0]
        at = now + self._gap(now)
        if at < self.scenario.duration:
            heappush(self._heap, (at, self._next_number(), self._arrive))
        self._ask(now)

    def _come_back(self, event: Event) -> None:
        self._ask(event[0])

    def _ask(self, now: float) -> None:
        pool = self._only_pool or self.pools[int(self._random() * len(self.pools))]
        if pool.budget is not None:
            pool.budget.on_request(now)
        found = pool.pick(None)
        if isinstance(found, Backend):
            self._attempt(pool, found, now, now, ())
        elif found is not AT_LIMIT or not _Waiter(self, pool, now).joined:
            self._failed(found.name, now, now)

    def _attempt(
        self, pool: Pool, backend: Backend, asked: float, now: float, tried: Sequence[Backend]
    ) -> None:
        pool.start(backend)
        end, failure, status = backend.upstream.take(now)
        if end - now > self._timeout:
            end, failure, status = now + self._timeout, RESPONSE_TIMEOUT, 0
        event = (end, self._next_number(), self._end, pool, backend, asked, now, failure, status, tried)
        heappush(self._heap, event)

    def _end(self, event: Event) -> None:
        now, _, _, pool, backend, asked, started, failure, status, tried = event
        pool.end(backend, started, failure, status, 0.0, 0, ANSWER if status else 0, now)
        if status == OK:
            if asked >= self._warm_up:
                self.latencies.append(now - asked)
            if self._again is not None:
                self._again(now)
        elif not self._retried(pool, backend, asked, now, failure, status, tried):
            self._failed(failure.name if failure is not None else str(status), asked, now)

    def _failed(self, name: str, asked: float, now: float) -> None:
        if asked >= self._warm_up:
            self.failures[name] = self.failures.get(name, 0) + 1
        if self._again is not None:
            self._again(now)

    def _retried(
        self,
        pool: Pool,
        backend: Backend,
        asked: float,
        now: float,
        failure: Failure | None,
        status: int,
        tried: Sequence[Backend],
    ) -> bool:
        """Tries once more where the rules of the pool allow it. All requests are idempotent here."""
        rules, budget = self._retries, pool.budget
        if rules is None or budget is None or len(tried) >= rules.attempts:
            return False
        if failure.retry == NEVER if failure is not None else status not in rules.statuses:
            return False
        tried = (*tried, backend)
        another = pool.pick(None, tried, waited=True)
        if not isinstance(another, Backend) or (failure is None and another in tried):
            return False
        if not budget.take(now):
            return False
        pool.retried(backend)
        self._attempt(pool, another, asked, now, tried)
        return True

    def _probe(self, event: Event) -> None:
        now, machine, probes = event[0], event[3], self.scenario.probes
        if probes is None:
            return
        self.clock.at(now + probes.interval, self._probe, machine)
        if machine.answers(now, probes.timeout):
            self._bad_probes[machine.id] = 0
            good = self._good_probes[machine.id] = self._good_probes.get(machine.id, 0) + 1
            if good >= probes.rise:
                self._set_health(machine.id, True)
        else:
            self._good_probes[machine.id] = 0
            bad = self._bad_probes[machine.id] = self._bad_probes.get(machine.id, 0) + 1
            if bad >= probes.fall:
                self._set_health(machine.id, False)

    def _set_health(self, name: str, up: bool) -> None:
        for pool in self.pools:
            backend = pool.backends.get(name)
            if backend is not None:
                pool.set_health(backend, up)

    # --- what came of it ---

    def present(self, machine: Machine) -> float:
        """For how many of the seconds that count it was in the pool."""
        start, end = self._warm_up, self.scenario.duration
        spans = machine.server.presence
        return sum(max(0.0, min(last, end) - max(first, start)) for first, last in spans)


class _Waiter:
    """A request in the queue of a pool."""

    def __init__(self, world: World, pool: Pool, asked: float) -> None:
        self.world, self.pool, self.asked = world, pool, asked
        self.joined = pool.wait(self)
        if self.joined:
            self.timer = world.clock.call_later(pool.rules.queue_timeout, self._give_up)
        else:
            pool.reject(AT_LIMIT)

    def on_turn(self) -> None:
        found = self.pool.pick(None, waited=True)
        if found is AT_LIMIT and self.pool.wait(self, first=True):
            return
        self.timer.cancel()
        now = self.world.clock.now
        if isinstance(found, Backend):
            self.world._attempt(self.pool, found, self.asked, now, ())
        else:
            self.world._failed(found.name, self.asked, now)

    def _give_up(self) -> None:
        self.pool.leave(self)
        self.pool.reject(QUEUE_TIMEOUT)
        self.world._failed(QUEUE_TIMEOUT.name, self.asked, self.world.clock.now)


def _forget(seconds: float) -> None:
    pass
