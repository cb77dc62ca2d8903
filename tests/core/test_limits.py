"""How much a pool takes on at once, and who waits: nobody is forgotten, nobody overtakes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.backend import DRAINING, Backend
from lb.core.failure import AT_LIMIT, NO_ELIGIBLE, RESET, Failure
from lb.core.pool import Pool
from lb.core.rules import PoolRules
from tests.core.fleet import load, made_pool, numbered, passes, picked, specs


class Someone:
    """An exchange that waits and, when it is its turn, takes a backend."""

    def __init__(self, pool: Pool, gives_up: bool = False, fails: bool = False) -> None:
        self.pool = pool
        self.gives_up = gives_up
        self.fails = fails
        self.turns = 0
        self.got: Backend | Failure | None = None

    def on_turn(self) -> None:
        self.turns += 1
        if self.gives_up:
            return
        self.got = self.pool.pick(None, waited=True)
        if isinstance(self.got, Backend):
            self.pool.start(self.got)
            if self.fails:
                self.pool.end(self.got, self.pool.clock.time(), RESET)


def made(
    per_backend: int = 1, requests: int = 0, queue: int = 100, count: int = 2, policy: str = "p2c"
) -> Pool:
    rules = PoolRules(requests_per_backend=per_backend, requests=requests, queue=queue)
    return made_pool(numbered([1] * count), policy, rules=rules)


def fill(pool: Pool) -> list[Backend]:
    """Starts attempts until there is no room."""
    started = []
    while isinstance(backend := pool.pick(None), Backend):
        pool.start(backend)
        started.append(backend)
    return started


def ended(pool: Pool, backend: Backend) -> None:
    pool.end(backend, pool.clock.time(), None, 200)


def waiting(pool: Pool, count: int) -> list[Someone]:
    waiters = [Someone(pool) for _ in range(count)]
    assert all(pool.wait(each) for each in waiters)
    return waiters


class TestLimits:
    @pytest.mark.parametrize("policy", ["p2c", "round_robin", "least_request", "random"])
    def test_each_backend_takes_so_many(self, policy: str) -> None:
        pool = made(per_backend=3, count=5, policy=policy)
        assert len(fill(pool)) == 15
        assert {backend.in_flight for backend in pool.backends.values()} == {3}
        assert pool.pick(None) is AT_LIMIT
        ended(pool, pool.backends["b3"])
        assert picked(pool).id == "b3"
        assert pool.policy_errors == 0
        assert pool.rejected == {}, "who gave up says so itself"

    def test_the_pool_takes_so_many(self) -> None:
        pool = made(per_backend=0, requests=7)
        assert len(fill(pool)) == 7
        ended(pool, next(iter(pool.backends.values())))
        assert len(fill(pool)) == 1

    def test_what_left_the_pool_still_counts(self) -> None:
        pool = made(per_backend=0, requests=2)
        gone = pool.backends["b0"]
        load(pool, b0=2)
        pool.update(specs(b1=1))
        assert pool.pick(None) is AT_LIMIT
        ended(pool, gone)
        assert picked(pool).id == "b1"

    def test_who_was_passed_over_is_said(self) -> None:
        pool = made(per_backend=1, count=3, policy="round_robin")
        load(pool, b0=1, b1=1)
        assert picked(pool).id == "b2"
        view, *_ = pool.seen()
        assert set(view.excluded) == {("b0", "at its limit"), ("b1", "at its limit")}

    def test_a_tried_one_is_better_than_none(self) -> None:
        pool = made()
        load(pool, b1=1)
        assert picked(pool, tried=[pool.backends["b0"]]).id == "b0"

    def test_without_a_backend_there_is_no_limit(self) -> None:
        pool = made()
        for backend in pool.backends.values():
            pool.set_state(backend, DRAINING)
        assert pool.pick(None) is NO_ELIGIBLE

    def test_what_is_rejected_is_counted(self) -> None:
        pool = made()
        pool.reject(AT_LIMIT)
        pool.reject(AT_LIMIT)
        assert pool.rejected == {"overloaded": 2}


class TestQueue:
    def test_a_free_place_calls_one(self) -> None:
        pool = made()
        started = fill(pool)
        first, second, third = waiting(pool, 3)
        ended(pool, started[0])
        assert (first.got, first.turns, second.turns, third.turns) == (started[0], 1, 0, 0)
        ended(pool, started[1])
        assert (second.got, third.turns) == (started[1], 0)
        assert len(pool.waiting) == 1

    def test_a_full_queue_takes_nobody(self) -> None:
        pool = made(queue=1)
        fill(pool)
        waiting(pool, 1)
        assert not pool.wait(Someone(pool))

    def test_who_comes_later_does_not_overtake(self) -> None:
        pool = made(per_backend=2)
        started = fill(pool)
        waiting(pool, 5)
        ended(pool, started[0])
        assert pool.pick(None) is AT_LIMIT
        assert all(backend.in_flight == 2 for backend in pool.backends.values())

    def test_even_where_there_is_room(self) -> None:
        pool = made()
        fill(pool)

        class Slow(Someone):
            def on_turn(self) -> None:
                later.append(pool.pick(None))

        later: list[Backend | Failure] = []
        pool.wait(Slow(pool))
        pool.wait(last := Someone(pool))
        ended(pool, pool.backends["b0"])
        assert later == [AT_LIMIT], "it must say that it has waited"
        assert last.got is pool.backends["b0"]

    def test_who_has_left_is_not_called(self) -> None:
        pool = made()
        started = fill(pool)
        first, second = waiting(pool, 2)
        pool.leave(first)
        ended(pool, started[0])
        assert (first.turns, second.got) == (0, started[0])

    def test_a_place_that_is_not_taken_goes_to_the_next(self) -> None:
        pool = made()
        started = fill(pool)
        assert pool.wait(Someone(pool, gives_up=True))
        assert pool.wait(Someone(pool, fails=True))
        last = waiting(pool, 1)[0]
        ended(pool, started[0])
        assert last.got is started[0]

    def test_who_comes_while_others_are_called_is_called_too(self) -> None:
        pool = made(count=1)
        fill(pool)
        newcomer = Someone(pool)

        class BringsAnother(Someone):
            def on_turn(self) -> None:
                assert pool.pick(None) is AT_LIMIT
                assert pool.wait(newcomer)

        assert pool.wait(BringsAnother(pool))
        assert pool.wait(Someone(pool, fails=True))
        ended(pool, pool.backends["b0"])
        assert newcomer.got is pool.backends["b0"]

    def test_a_thousand_that_fail_at_once_are_no_call_within_a_call(self) -> None:
        pool = made(queue=5000)
        started = fill(pool)
        waiters = [Someone(pool, fails=True) for _ in range(5000)]
        assert all(pool.wait(each) for each in waiters)
        ended(pool, started[0])
        assert {each.turns for each in waiters} == {1}
        assert not pool.waiting

    def test_all_are_told_when_no_backend_is_left(self) -> None:
        pool = made(count=1)
        fill(pool)
        waiters = waiting(pool, 3)
        pool.set_health(pool.backends["b0"], False)
        assert [each.got for each in waiters] == [NO_ELIGIBLE] * 3
        assert not pool.waiting

    @pytest.mark.parametrize("how", ["member", "up", "limit", "off", "state"])
    def test_more_room_calls_as_many_as_it_holds(self, how: str) -> None:
        pool = made(per_backend=2, count=3)
        third = pool.backends["b2"]
        if how == "up":
            pool.set_health(third, False)
        elif how == "state":
            pool.set_state(third, DRAINING)
        elif how == "member":
            pool.update(numbered([1, 1]))
        else:
            pool.configure(PoolRules(requests=4, requests_per_backend=2, queue=100))
        fill(pool)
        waiters = waiting(pool, 3)
        if how == "member":
            pool.update(numbered([1, 1, 1]))
        elif how == "up":
            pool.set_health(third, True)
        elif how == "limit":
            pool.configure(PoolRules(requests=6, queue=100))
        elif how == "state":
            pool.set_state(third, "active")
        else:
            pool.configure(PoolRules())
        assert [each.turns for each in waiters] == [1, 1, 1 if how == "off" else 0]

    def test_a_limit_that_was_lowered_calls_nobody_before_there_is_room(self) -> None:
        pool = made(per_backend=3, count=1)
        started = fill(pool)
        pool.configure(PoolRules(requests_per_backend=1, queue=10))
        (waiter,) = waiting(pool, 1)
        ended(pool, started[0])
        ended(pool, started[1])
        assert waiter.turns == 0
        ended(pool, started[2])
        assert waiter.turns == 1

    def test_the_end_at_a_drained_backend_frees_a_place_of_the_pool(self) -> None:
        pool = made(per_backend=0, requests=2)
        load(pool, b0=2)
        (waiter,) = waiting(pool, 1)
        pool.set_state(pool.backends["b0"], DRAINING)
        ended(pool, pool.backends["b0"])
        assert waiter.got is pool.backends["b1"]


class Table:
    """What other worker processes do, as the test says."""

    def __init__(self, **elsewhere: int) -> None:
        self.elsewhere = elsewhere
        self.told: dict[int, int] = {}

    def others(self, place: int) -> int:
        return self.elsewhere[f"b{place}"]

    def set(self, place: int, count: int) -> None:
        self.told[place] = count


def shared(table: Table, policy: str = "p2c", per_backend: int = 0) -> Pool:
    rules = PoolRules(requests_per_backend=per_backend, queue=10)
    pool = made_pool(policy=policy, rules=rules)

    def share(backend: Backend) -> None:
        backend.shared, backend.place = table, int(backend.id[1:])

    pool.on_added = share
    pool.update(numbered([1] * len(table.elsewhere)))
    return pool


class TestOtherProcesses:
    def test_their_requests_count(self) -> None:
        pool = shared(table := Table(b0=5, b1=0))
        b0, b1 = pool.backends.values()
        pool.start(b0)
        pool.start(b1)
        assert (b0.own, b0.elsewhere(), b0.in_flight) == (1, 5, 6)
        assert table.told == {0: 1, 1: 1}
        ended(pool, b0)
        assert (b0.own, b0.in_flight, table.told[0]) == (0, 5, 0)

    @pytest.mark.parametrize("policy", ["p2c", "least_request"])
    def test_policies_see_them_at_once(self, policy: str) -> None:
        pool = shared(table := Table(b0=5, b1=0), policy)
        assert {picked(pool).id for _ in range(20)} == {"b1"}
        table.elsewhere.update(b0=0, b1=5)
        assert {picked(pool).id for _ in range(20)} == {"b0"}

    def test_a_backends_limit_is_for_all_of_them(self) -> None:
        pool = shared(Table(b0=2, b1=1), per_backend=3)
        assert sorted(backend.id for backend in fill(pool)) == ["b0", "b1", "b1"]

    def test_who_is_forestalled_by_them_keeps_its_place(self) -> None:
        pool = shared(table := Table(b0=3, b1=3), per_backend=3)

        class Forestalled(Someone):
            def on_turn(self) -> None:
                if not self.turns:
                    table.elsewhere["b1"] = 3
                super().on_turn()
                if self.got is AT_LIMIT:
                    assert pool.wait(self, first=True)

        pool.wait(first := Forestalled(pool))
        (second,) = waiting(pool, 1)
        table.elsewhere["b1"] = 2
        passes(pool, 0.05)
        assert (first.got, first.turns, second.turns) == (AT_LIMIT, 1, 0)
        table.elsewhere["b1"] = 2
        passes(pool, 0.05)
        assert (first.got, first.turns, second.turns) == (pool.backends["b1"], 2, 0)

    def test_what_they_free_is_noticed(self) -> None:
        pool = shared(table := Table(b0=3, b1=3), per_backend=3)
        first, second = waiting(pool, 2)
        passes(pool, 1.0)
        assert first.turns == 0
        table.elsewhere["b1"] = 2
        passes(pool, 0.05)
        assert (first.got, second.turns) == (pool.backends["b1"], 0)
        pool.leave(second)
        passes(pool, 1.0)


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["come", "come", "come", "end", "leave", "up", "down", "limit"]),
            st.integers(0, 4),
        ),
        max_size=80,
    ),
    fails=st.booleans(),
)
def test_whoever_waits_waits_for_want_of_room_and_in_order(steps: list[tuple[str, int]], fails: bool) -> None:
    pool = made(per_backend=2, count=3)
    arrived: list[Someone] = []
    running: list[Backend] = []

    class Guest(Someone):
        def on_turn(self) -> None:
            assert self is arrived.pop(0), "first come, first served"
            super().on_turn()
            assert self.got is not AT_LIMIT
            if isinstance(self.got, Backend) and not self.fails:
                running.append(self.got)

    for what, which in steps:
        backend = pool.backends.get(f"b{which}")
        if what == "come":
            got = pool.pick(None)
            if isinstance(got, Backend):
                assert not arrived, "nobody overtakes"
                pool.start(got)
                running.append(got)
            elif got is AT_LIMIT:
                arrived.append(guest := Guest(pool, fails=fails and which % 2 == 0))
                pool.wait(guest)
        elif what == "end" and running:
            ended(pool, running.pop(which % len(running)))
        elif what == "leave" and arrived:
            pool.leave(arrived.pop(which % len(arrived)))
        elif what in ("up", "down") and backend is not None:
            pool.set_health(backend, what == "up")
        elif what == "limit":
            pool.configure(PoolRules(requests_per_backend=which, requests=which * 2, queue=100))
        limit = pool.rules.requests_per_backend
        room = not pool.rules.requests or pool.in_flight < pool.rules.requests
        room = room and any(not limit or each.in_flight < limit for each in pool.eligible)
        assert list(pool.waiting.waiters) == arrived
        assert not (arrived and (room or not pool.eligible))
        assert pool.in_flight == len(running)
