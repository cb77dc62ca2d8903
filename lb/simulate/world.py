"""The world that a policy is tried in: clients, workers with a pool each, machines. A request is one event.

world = World(scenario, Contestant("p2c", PowerOfTwo), seed=1)
world.run()
world.latencies      # of the requests that went well, in seconds
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Protocol

from lb.core.backend import Backend
from lb.core.failure import AT_LIMIT, NEVER, QUEUE_TIMEOUT, RESPONSE_TIMEOUT, Failure
from lb.core.message import Request
from lb.core.pool import Pool
from lb.core.rules import PoolRules
from lb.simulate.arrivals import gaps
from lb.simulate.clock import Event, VirtualClock
from lb.simulate.contestant import Contestant
from lb.simulate.cookies import Jar
from lb.simulate.keys import Owners, drawing, drawn_requests
from lb.simulate.latencies import Latencies
from lb.simulate.machine import Machine
from lb.simulate.presence import Presence
from lb.simulate.probing import Probing
from lb.simulate.scenario import Clients, Poisson, Scenario

OK = 200
ANSWER = 1024
"""Bytes of each answer, for policies that look at them."""

STEPS = 100
"""Progress is told so many times a run."""


class Watcher(Protocol):
    """Looks at a world so many times a run, at equal distances; and at its end. It folds the latencies."""

    looks: int

    def look(self, world: World) -> object: ...
    def end(self, world: World) -> object: ...


class World:
    """One run of one policy."""

    def __init__(self, scenario: Scenario, contestant: Contestant, seed: int = 1) -> None:
        self.scenario = scenario
        self.contestant = contestant
        self.clock = VirtualClock()
        self.latencies = Latencies()
        self.failures: dict[str, int] = {}  # by name, or by status where the backend has answered
        self.owners: Owners | None = None  # who has which key, where requests have any
        self.jar: Jar | None = None  # the cookies of the clients, where the pool sets any
        horizon = scenario.duration
        self.machines = [Machine(server, f"{seed}/machine", horizon) for server in scenario.servers]
        self._presence = Presence(scenario, self.machines)
        self._heap, self._next_number = self.clock.heap, self.clock.next_number
        self._timeout, self._warm_up = scenario.timeout, scenario.warm_up
        self._retries = scenario.rules.retries
        self._random = Random(f"{seed}/worker").random
        self.pools = [self._pool(number, seed) for number in range(scenario.workers)]
        self._only_pool = self.pools[0] if len(self.pools) == 1 else None
        self._budgeted = self.pools[0].budget is not None
        self._again: Callable[[float], object] | None = None  # what a client does when it has its answer
        self._arrival = inf  # when the next request comes by itself
        self._gap: Callable[[float], float] = lambda now: inf  # from that to the one after it
        self._request: Callable[[], Request | None] | None = None  # what the next one asks for
        self._on_end = self._end
        self._people(seed)
        self._presence.follow(self.pools, self.clock)
        if scenario.probes is not None:
            Probing(scenario.probes, self.machines, self.pools, self.clock)
        self.clock.at(scenario.warm_up, self._begin_counting)

    # --- before it begins ---

    def _pool(self, number: int, seed: int) -> Pool:
        scenario = self.scenario
        rng = Random(f"{seed}/policy/{number}")
        policy = self.contestant.made(self.clock, rng, number, scenario.workers)
        rng = Random(f"{seed}/pool/{number}")
        pool = Pool(scenario.name, policy, self.clock, rules=_rules_in_zone(scenario, number), rng=rng)
        table = self._presence.table(number) if scenario.shared else None

        def added(backend: Backend) -> None:
            backend.upstream = self._presence.machine(backend.id)
            backend.duration.observe = _forget  # nobody reads it here
            if table is not None:
                backend.shared, backend.place = table, self._presence.place(backend.id)

        pool.on_added = added
        return pool

    def _people(self, seed: int) -> None:
        arrivals, rng = self.scenario.arrivals, Random(f"{seed}/arrivals")
        if self.scenario.keys is not None:
            draw = drawing(self.scenario.keys, Random(f"{seed}/keys"))
            if self.scenario.rules.sticky is not None:
                self.jar = Jar(self._reads_keys)
                self._request = self.jar.requests(draw)
            else:
                self._request = drawn_requests(draw, self._reads_keys)
            self.owners = Owners()
        if isinstance(arrivals, Clients):
            think = arrivals.think.draw_from(rng)

            def again(now: float) -> None:
                at = now + think()
                if at < self.scenario.duration:
                    heappush(self._heap, (at, self._next_number(), self._come_back))

            self._again = again
            for _ in range(arrivals.count):
                again(0.0)
            return
        if isinstance(arrivals, Poisson):
            self._gap = gaps(arrivals, rng)
        else:
            reader = self.pools[0].key_of
            self._gap, self._request = arrivals.play(reader)
            self.owners = Owners() if reader is not None else None
        self._arrival = self._gap(0.0)

    @property
    def _reads_keys(self) -> bool:
        return self.pools[0].policy.key_of is not None

    def _begin_counting(self, event: Event) -> None:
        for machine in self.machines:
            machine.taken = 0
        if self.owners is not None:
            self.owners.begin_counting()

    # --- the run ---

    def run(
        self, told: Callable[[float], object] = lambda share: None, watcher: Watcher | None = None
    ) -> None:
        """From the first request to the end of the last. `told` hears how far it is, from 0 to 1."""
        steps = STEPS if watcher is None else watcher.looks
        for step in range(1, steps + 1):
            self.advance(self.scenario.duration * step / steps)
            if watcher is None:
                self.latencies.fold()
            else:
                watcher.look(self)
            told(step / steps)
        while any(pool.in_flight or len(pool.waiting) for pool in self.pools) and self.step():
            pass
        if watcher is not None:
            watcher.end(self)

    def advance(self, until: float) -> None:
        """Lets happen what is due up to then, in order. Requests don't come through the heap: there are as
        many of them as of everything else."""
        clock, heap, ask, gap = self.clock, self._heap, self._ask, self._gap
        arrival = self._arrival
        last = min(until, self.scenario.duration)
        while True:
            if heap and heap[0][0] <= arrival:
                if heap[0][0] > until:
                    break
                event = heappop(heap)
                clock.now = event[0]
                event[2](event)
            elif arrival <= last:
                clock.now = now = arrival
                self._arrival = arrival = now + gap(now)
                ask(now)
            else:
                break
        clock.now = max(clock.now, until)

    def step(self) -> bool:
        """Lets the next thing happen; false where there is none."""
        now = self._arrival
        if now > self.scenario.duration or (self._heap and self._heap[0][0] <= now):
            return self.clock.step()
        self.clock.now = now
        self._arrival = now + self._gap(now)
        self._ask(now)
        return True

    def _come_back(self, event: Event) -> None:
        self._ask(event[0])

    def _ask(self, now: float) -> None:
        """A request comes."""
        pool = self._only_pool or self.pools[int(self._random() * len(self.pools))]
        if self._budgeted and pool.budget is not None:
            pool.budget.on_request(now)
        request = None if self._request is None else self._request()
        if self.jar is not None and request is not None:
            self.jar.show(request, pool)
        found = pool.pick(request)
        if isinstance(found, Backend):
            self._attempt(pool, found, now, now, request, ())
        elif found is not AT_LIMIT or not _Waiter(self, pool, now, request).joined:
            self._failed(found.name, now, now)

    def _attempt(
        self,
        pool: Pool,
        backend: Backend,
        asked: float,
        now: float,
        request: Request | None,
        tried: Sequence[Backend],
    ) -> None:
        if self.owners is not None and request is not None and not tried:
            self.owners.picked(request.key or request.target, backend)
        pool.start(backend)
        end, failure, status = backend.upstream.take(now)
        if end - now > self._timeout:
            end, failure, status = now + self._timeout, RESPONSE_TIMEOUT, 0
        number, on_end = self._next_number(), self._on_end
        heappush(
            self._heap, (end, number, on_end, pool, backend, asked, now, failure, status, request, tried)
        )

    def _end(self, event: Event) -> None:
        now, _, _, pool, backend, asked, started, failure, status, request, tried = event
        pool.end(backend, started, failure, status, 0.0, 0, ANSWER if status else 0, now)
        if self.jar is not None and status:
            self.jar.keep(request, pool, backend, bool(tried))
        if status == OK:
            if asked >= self._warm_up:
                self.latencies.append(now - asked)
            if self._again is not None:
                self._again(now)
        elif not self._retried(pool, backend, asked, now, failure, status, request, tried):
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
        request: Request | None,
        tried: Sequence[Backend],
    ) -> bool:
        """Tries once more where the rules of the pool allow it. All requests are idempotent here."""
        rules, budget = self._retries, pool.budget
        if rules is None or budget is None or len(tried) >= rules.attempts:
            return False
        if failure.retry == NEVER if failure is not None else status not in rules.statuses:
            return False
        tried = (*tried, backend)
        another = pool.pick(request, tried, waited=True)
        if not isinstance(another, Backend) or (failure is None and another in tried):
            return False
        if not budget.take(now):
            return False
        pool.retried(backend)
        self._attempt(pool, another, asked, now, request, tried)
        return True

    # --- what came of it ---

    def present(self, machine: Machine) -> float:
        """For how many of the seconds that count it was in the pool."""
        start, end = self._warm_up, self.scenario.duration
        spans = machine.server.presence
        return sum(max(0.0, min(last, end) - max(first, start)) for first, last in spans)


class _Waiter:
    """A request in the queue of a pool."""

    def __init__(self, world: World, pool: Pool, asked: float, request: Request | None) -> None:
        self.world, self.pool, self.asked, self.request = world, pool, asked, request
        self.joined = pool.wait(self)
        if self.joined:
            self.timer = world.clock.call_later(pool.rules.queue_timeout, self._give_up)
        else:
            pool.reject(AT_LIMIT)

    def on_turn(self) -> None:
        found = self.pool.pick(self.request, waited=True)
        if found is AT_LIMIT and self.pool.wait(self, first=True):
            return
        self.timer.cancel()
        now = self.world.clock.now
        if isinstance(found, Backend):
            self.world._attempt(self.pool, found, self.asked, now, self.request, ())
        else:
            self.world._failed(found.name, self.asked, now)

    def _give_up(self) -> None:
        self.pool.leave(self)
        self.pool.reject(QUEUE_TIMEOUT)
        self.world._failed(QUEUE_TIMEOUT.name, self.asked, self.world.clock.now)


def _rules_in_zone(scenario: Scenario, number: int) -> PoolRules:
    rules, zones = scenario.rules, scenario.zones
    if rules.zones is None:
        return rules
    zone = zones[number % len(zones)] if zones else ""
    return replace(rules, zones=replace(rules.zones, zone=zone) if zone else None)


def _forget(seconds: float) -> None:
    pass
