"""Counts of workers, sent as differences and added up: nothing is lost, and nothing is counted twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.control.messages import Counts
from lb.control.sums import INTERVAL, PART, PIECE, Sums, Tally
from lb.core.backend import Backend
from lb.core.failure import NO_ELIGIBLE, RESET
from lb.core.pool import Pool
from lb.observe.clients import ClientMetrics
from lb.observe.metrics import LbCollector, ReloadState
from tests.core.fleet import made_pool, numbered, specs

LISTENER = "127.0.0.1:80"


class Place:
    """The pools and listeners of one process."""

    def __init__(self, **weights: int) -> None:
        self.pool = made_pool(specs(**weights))
        self.pools: dict[str, Pool] = {"greeter": self.pool}
        self.clients = ClientMetrics()
        self.clients.listener(LISTENER)

    def backend(self, name: str) -> Backend:
        return self.pool.backends[name]

    def page(self, sums: Sums | None = None) -> list[str]:
        """The metrics of this place."""
        collector = LbCollector(
            lambda: self.pools,
            self.clients,
            ReloadState(0.0),
            "1",
            sums.connections if sums else lambda backend: {},
            sums.queued if sums else lambda pool: 0,
        )
        pieces = (piece for family in collector.families() for piece in family.pieces(False))
        return sorted(b"".join(pieces).decode().splitlines())


class Worker(Place):
    """Counts, and sends it."""

    def __init__(self, **weights: int) -> None:
        super().__init__(**weights)
        self.open: dict[str, dict[str, int]] = {}  # connections, by backend
        self.waiting = 0
        self.tally = Tally(
            lambda: self.pools,
            self.clients,
            lambda backend: self.open.get(backend.id, {}),
            lambda pool: self.waiting,
        )

    def sent(self) -> Iterator[Counts]:
        """What it sends, as it arrives."""
        for counts in self.tally.take():
            yield Counts(**json.loads(json.dumps(asdict(counts))))

    def served(self, name: str, status: int, seconds: float) -> None:
        """One attempt, and the client's request that it was for."""
        pool, backend = self.pool, self.backend(name)
        pool.start(backend)
        now = pool.clock.time()
        failure = None if status else RESET
        pool.end(backend, now - seconds, failure, status, now, sent=3, received=5)
        pool.connected(backend, seconds / 2)
        stats = self.clients.listener(LISTENER)
        stats.requests[status] = stats.requests.get(status, 0) + 1
        stats.duration.observe(seconds)


def add(sums: Sums, *workers: Worker) -> None:
    for worker in workers:
        for counts in worker.sent():
            sums.add(worker, counts)


@pytest.fixture
def whole() -> Place:
    """The supervisor's."""
    return Place(a=1, b=1)


@pytest.fixture
def sums(whole: Place) -> Sums:
    return Sums(lambda: whole.pools, whole.clients)


attempts = st.tuples(
    st.integers(0, 2), st.sampled_from("ab"), st.sampled_from([0, 200, 200, 404]), st.floats(0, 100)
)


@given(st.lists(st.one_of(attempts, st.integers(0, 2)), max_size=40))
def test_the_page_of_all_is_that_of_one_that_did_it_all(
    steps: list[tuple[int, str, int, float] | int],
) -> None:
    whole, alone = Place(a=1, b=1), Worker(a=1, b=1)
    sums = Sums(lambda: whole.pools, whole.clients)
    workers = [Worker(a=1, b=1) for _ in range(3)]
    for step in steps:
        if isinstance(step, int):
            add(sums, workers[step])
        else:
            number, *attempt = step
            workers[number].served(*attempt)  # type: ignore[arg-type]
            alone.served(*attempt)  # type: ignore[arg-type]
    add(sums, *workers)
    for line, wanted in zip(whole.page(), alone.page(), strict=True):
        if "_sum" in line:  # of floats: not the same to the last bit in another order
            assert float(line.split()[-1]) == pytest.approx(float(wanted.split()[-1]))
        else:
            assert line == wanted


def test_what_is_sent_once_is_not_sent_again() -> None:
    worker = Worker(a=1, b=1)
    assert list(worker.tally.take()) == []
    worker.served("a", 200, 0.003)
    assert [counts.backends for counts in worker.tally.take() if counts.backends] == [
        [
            (
                ("greeter", "a", "a.test:9000"),
                {
                    "requests": [(200, 1)],
                    "sent": 3,
                    "received": 5,
                    "duration": [[(3, 1)], pytest.approx(0.003)],
                    "first_byte": [[(3, 1)], pytest.approx(0.003)],
                    "connect": [[(2, 1)], pytest.approx(0.0015)],
                },
            )
        ]
    ]
    assert list(worker.tally.take()) == []


class TestTheEndOfAWorker:
    def test_what_it_has_sent_stays_counted(self, whole: Place, sums: Sums) -> None:
        first, second = Worker(a=1, b=1), Worker(a=1, b=1)
        first.served("a", 200, 0.1)
        second.served("a", 200, 0.1)
        add(sums, first, second)
        first.served("a", 200, 0.1)  # this one is lost
        sums.forget(first)
        successor = Worker(a=1, b=1)
        successor.served("a", 200, 0.1)
        add(sums, second, successor)
        assert whole.backend("a").requests == {200: 3}
        assert sum(whole.backend("a").duration.counts) == 3
        assert whole.clients.listeners[LISTENER].requests == {200: 3}

    def test_its_gauges_go(self, whole: Place, sums: Sums) -> None:
        workers = [Worker(a=1, b=1), Worker(a=1, b=1)]
        for worker in workers:
            worker.clients.listener(LISTENER).connections = 4
            worker.open["a"] = {"active": 2, "idle": 1}
            worker.waiting = 5
        add(sums, *workers)
        assert whole.clients.listeners[LISTENER].connections == 8
        assert sums.connections(whole.backend("a")) == {"active": 4, "idle": 2}
        assert sums.connections(whole.backend("b")) == {"active": 0, "idle": 0}
        assert sums.queued(whole.pool) == 10
        assert 'lb_pool_queue_length{pool="greeter"} 10' in whole.page(sums)
        sums.forget(workers[0])
        assert whole.clients.listeners[LISTENER].connections == 4
        assert sums.connections(whole.backend("a")) == {"active": 2, "idle": 1}
        assert sums.queued(whole.pool) == 5

    def test_one_that_never_said_anything_may_go(self, sums: Sums) -> None:
        sums.forget("nobody")


def test_a_gauge_goes_down_again(whole: Place, sums: Sums) -> None:
    worker = Worker(a=1, b=1)
    for count in (3, 0):
        worker.clients.listener(LISTENER).connections = count
        worker.open["a"] = {"active": count}
        add(sums, worker)
        assert whole.clients.listeners[LISTENER].connections == count
        assert sums.connections(whole.backend("a"))["active"] == count


def test_what_a_pool_counts_itself(whole: Place, sums: Sums) -> None:
    worker = Worker()
    for _ in range(2):
        worker.pool.pick(None)
    worker.pool.policy_errors = 3
    add(sums, worker)
    assert whole.pool.policy_errors == 3
    assert whole.pool.rejected == worker.pool.rejected
    assert sum(whole.pool.rejected.values()) == 2
    assert NO_ELIGIBLE.name not in whole.pool.rejected


def test_tunnels(whole: Place, sums: Sums) -> None:
    workers = [Worker(a=1), Worker(a=1)]
    for worker in workers:
        for _ in range(3):
            worker.pool.tunnel_began()
        worker.pool.tunnel_ended(1.5, None)
        worker.pool.tunnel_ended(0.5, RESET)
        worker.pool.tunnel_sent += 7
        worker.pool.tunnel_received += 70
    add(sums, *workers)
    add(sums, *workers)
    pool = whole.pool
    assert (pool.tunnels, pool.tunnel_ends, pool.tunnel_seconds) == (2, {"none": 2, "reset": 2}, 4.0)
    assert (pool.tunnel_sent, pool.tunnel_received) == (14, 140)
    sums.forget(workers[0])
    assert (pool.tunnels, pool.tunnel_sent) == (1, 14)
    workers[1].pool.tunnel_ended(1.0, None)
    add(sums, workers[1])
    assert (pool.tunnels, pool.tunnel_ends["none"]) == (0, 3)


class TestMembership:
    def test_a_series_goes_with_its_backend(self, whole: Place, sums: Sums) -> None:
        worker = Worker(a=1, b=1)
        worker.served("a", 200, 0.1)
        add(sums, worker)
        whole.pool.update(specs(b=1))
        worker.served("a", 200, 0.1)
        worker.open["a"] = {"active": 1}
        worker.served("b", 200, 0.1)
        add(sums, worker)
        assert not any('backend="a"' in line for line in whole.page(sums))
        assert whole.backend("b").requests == {200: 1}

    def test_one_of_the_same_name_at_another_address_begins_anew(self, whole: Place, sums: Sums) -> None:
        worker = Worker(a=1, b=1)
        add(sums, worker)
        worker.served("a", 200, 0.1)
        moved = specs(a=1, b=1)
        moved[0] = type(moved[0])("a", "elsewhere.test", 9000)
        whole.pool.update(moved)
        add(sums, worker)
        assert whole.backend("a").requests == {}
        worker.pool.update(moved)
        worker.served("a", 404, 0.1)
        add(sums, worker)
        assert whole.backend("a").requests == {404: 1}

    def test_a_pool_that_is_no_more_is_nobodys_business(self, whole: Place, sums: Sums) -> None:
        worker = Worker(a=1, b=1)
        worker.pools = whole.pools | {"gone": worker.pool}
        worker.pool.policy_errors = 1
        worker.served("a", 200, 0.1)
        add(sums, worker)
        assert whole.backend("a").requests == {}

    def test_old_gauges_are_swept_away(self, whole: Place, sums: Sums) -> None:
        worker = Worker(a=1, b=1)
        worker.open = {"a": {"active": 1}, "b": {"active": 1}}
        add(sums, worker)
        whole.pool.update(specs(b=1))
        sums.prune()
        whole.pool.update(specs(a=1, b=1))
        assert sums.connections(whole.backend("a"))["active"] == 0
        assert sums.connections(whole.backend("b"))["active"] == 1

    def test_who_comes_while_counts_are_sent_is_not_counted_twice(self, whole: Place, sums: Sums) -> None:
        worker = Worker()
        worker.pool.update(numbered([1] * (PIECE + 1)))
        whole.pool.update(numbered([1] * (PIECE + 2)))
        for name in worker.pool.backends:
            worker.served(name, 200, 0.1)
        pieces = worker.sent()
        for _ in range(2):
            sums.add(worker, next(pieces))
        worker.pool.update(numbered([1] * (PIECE + 2)))
        worker.served(f"b{PIECE + 1}", 200, 0.1)
        add(sums, worker)  # asked for by a scrape, say
        for counts in pieces:
            sums.add(worker, counts)
        add(sums, worker)
        assert [sum(each.requests.values()) for each in whole.pool.backends.values()] == [1] * (PIECE + 2)


def test_thousands_of_backends_are_sent_in_pieces_and_less_often() -> None:
    worker = Worker()
    worker.pool.update(numbered([1] * 3000))
    rng = Random(1)
    for name in worker.pool.backends:
        worker.served(name, 200, rng.random())
    assert worker.tally.pause == INTERVAL
    pieces = [len(counts.backends) for counts in worker.tally.take()]
    assert sum(pieces) == 3000
    assert max(pieces) == PIECE
    assert worker.tally.pause == pytest.approx(worker.tally._took / PART)
    assert worker.tally.pause > INTERVAL
