"""Who fails real requests goes out for a while, and one request decides whether it may come back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.backend import DISABLED, Backend
from lb.core.failure import CLIENT_GONE, CONNECT_FAILED, RESET, RESPONSE_CUT, Failure
from lb.core.pool import Pool
from lb.core.rules import OutlierRules, PoolRules
from tests.core.fleet import attempted, ids, made_pool, numbered, passes, picked, served, specs

DEFAULT = OutlierRules()


def made(rules: OutlierRules = DEFAULT, count: int = 4) -> Pool:
    return made_pool(numbered([1] * count), "round_robin", rules=PoolRules(outliers=rules))


def fails(pool: Pool, name: str, times: int = 5, failure: Failure = RESET) -> None:
    for _ in range(times):
        attempted(pool, name, failure)


def out(pool: Pool) -> list[str]:
    return [backend.id for backend in pool.backends.values() if backend.excluded.startswith("ejected")]


class TestInARow:
    def test_five_failures_eject(self) -> None:
        pool = made()
        fails(pool, "b0", 4)
        assert out(pool) == []
        fails(pool, "b0", 1)
        assert out(pool) == ["b0"]
        assert "b0" not in served(pool, 100)
        assert pool.view.excluded == (("b0", "ejected (5 failures in a row, for 10 s)"),)
        assert pool.backends["b0"].ejections == 1

    def test_a_success_between_them_starts_anew(self) -> None:
        pool = made()
        fails(pool, "b0", 4)
        attempted(pool, "b0")
        fails(pool, "b0", 4)
        assert out(pool) == []

    def test_bad_answers_count_like_failures(self) -> None:
        pool = made()
        for status in (502, 503, 504, 503, 502):
            attempted(pool, "b0", status=status)
        assert out(pool) == ["b0"]
        for _ in range(5):
            attempted(pool, "b1", status=500)
        assert out(pool) == ["b0"]

    def test_other_statuses_may_be_named(self) -> None:
        pool = made(replace(DEFAULT, statuses=frozenset((429, 500))))
        for _ in range(4):
            attempted(pool, "b0", status=429)
        attempted(pool, "b0", status=450)
        for _ in range(5):
            attempted(pool, "b1", status=429)
            attempted(pool, "b2", status=503)
        assert out(pool) == ["b1"]

    def test_a_clients_failure_is_neither_good_nor_bad(self) -> None:
        pool = made()
        fails(pool, "b0", 4)
        fails(pool, "b0", 10, CLIENT_GONE)
        assert out(pool) == []
        fails(pool, "b0", 1)
        assert out(pool) == ["b0"]

    def test_neither_is_an_idle_connection_that_had_broken(self) -> None:
        """A backend that restarts closes all of them; each is noticed by the request that takes it."""
        pool = made()
        fails(pool, "b0", 4)
        backend = pool.backends["b0"]
        for _ in range(10):
            pool.start(backend)
            pool.end(backend, pool.clock.time(), RESET, stale=True)
        assert out(pool) == []
        assert backend.failures == {"reset": 14}
        fails(pool, "b0", 1)
        passes(pool, 10.0)
        pool.start(backend)
        assert out(pool) == ["b0"]
        pool.end(backend, pool.clock.time(), RESET, stale=True)
        assert out(pool) == [], "the next request tries it"

    def test_off(self) -> None:
        pool = made(replace(DEFAULT, consecutive_failures=0))
        fails(pool, "b0", 100)
        assert out(pool) == []

    def test_coming_up_again_starts_anew(self) -> None:
        pool = made()
        backend = pool.backends["b0"]
        pool.set_health(backend, False)
        fails(pool, "b0", 20)
        pool.set_health(backend, True)
        fails(pool, "b0", 4)
        assert out(pool) == []


class TestHowMany:
    @pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (7, 3)])
    def test_never_more_than_a_part_of_the_pool(self, count: int, most: int) -> None:
        pool = made(count=count)
        for _ in range(20):
            for name in pool.backends:
                fails(pool, name, 1)
        assert len(out(pool)) == most

    def test_those_that_a_person_took_out_are_not_counted(self) -> None:
        pool = made(count=4)
        for name in ("b2", "b3"):
            pool.set_state(pool.backends[name], DISABLED)
        fails(pool, "b0")
        fails(pool, "b1")
        assert [each.id for each in pool.backends.values() if each.ejection is not None] == ["b0"]

    def test_the_last_one_that_serves_stays(self) -> None:
        pool = made(count=2)
        pool.set_health(pool.backends["b1"], False)
        fails(pool, "b0", 20)
        assert ids(pool.eligible) == ["b0"]

    def test_when_the_last_other_one_falls_ill_it_is_back(self) -> None:
        pool = made(count=2)
        fails(pool, "b0")
        assert ids(pool.eligible) == ["b1"]
        pool.set_health(pool.backends["b1"], False)
        assert ids(pool.eligible) == ["b0"]

    def test_when_others_leave_too_many_are_back(self) -> None:
        pool = made(count=6)
        for name in ("b0", "b1", "b2"):
            fails(pool, name)
            passes(pool, 1.0)
        assert out(pool) == ["b0", "b1", "b2"]
        pool.update(numbered([1] * 4))
        assert out(pool) == ["b1", "b2"], "who would be back first is back"

    def test_one_that_leaves_makes_room(self) -> None:
        pool = made(count=3)
        fails(pool, "b0")
        pool.update(specs(b1=1, b2=1, b3=1))
        fails(pool, "b1")
        assert out(pool) == ["b1"]
        passes(pool, 1000.0)  # the timer of who has left wakes nobody


class TestComingBack:
    def trial(self, pool: Pool) -> tuple[Backend, float]:
        """The one request that tries b0 again."""
        while (backend := picked(pool)).id != "b0":
            pool.start(backend)
            pool.end(backend, pool.clock.time(), None, 200)
        pool.start(backend)
        return backend, pool.clock.time()

    def test_when_another_one_fails_it_is_tried_early(self) -> None:
        """A rolling restart: b0 is well again, and b1 is down before b0's time is over."""
        pool = made(count=3)
        fails(pool, "b0")
        passes(pool, 1)
        fails(pool, "b1")
        assert out(pool) == [], "b0 may be tried, b1 can't be ejected too"
        backend, started = self.trial(pool)
        pool.end(backend, started, None, 200)
        fails(pool, "b1", 1)
        assert out(pool) == ["b1"]
        assert set(served(pool, 100)) == {"b0", "b2"}

    def test_not_again_and_again(self) -> None:
        pool = made(count=3)
        fails(pool, "b0")
        fails(pool, "b1")
        backend, started = self.trial(pool)
        pool.end(backend, started, RESET)
        fails(pool, "b1", 50)
        assert out(pool) == ["b0"]
        passes(pool, 0.3)
        fails(pool, "b1", 1)
        assert out(pool) == []

    def test_one_request_decides(self) -> None:
        pool = made()
        fails(pool, "b0")
        passes(pool, 9.9)
        assert out(pool) == ["b0"]
        passes(pool, 0.2)
        assert out(pool) == []
        backend, started = self.trial(pool)
        assert out(pool) == ["b0"]
        assert "b0" not in served(pool, 100)
        pool.end(backend, started, None, 200)
        assert out(pool) == []
        fails(pool, "b0", 4)
        assert out(pool) == [], "it starts anew"

    @pytest.mark.parametrize(("failure", "status"), [(CONNECT_FAILED, 0), (None, 503)])
    def test_its_failure_ejects_for_twice_as_long(self, failure: Failure | None, status: int) -> None:
        pool = made()
        fails(pool, "b0")
        passes(pool, 10.0)
        for seconds in (20.0, 40.0, 80.0, 160.0, 300.0, 300.0):
            backend, started = self.trial(pool)
            pool.end(backend, started, failure, status)
            passes(pool, seconds - 0.1)
            assert out(pool) == ["b0"]
            passes(pool, 0.1)
            assert out(pool) == []
        assert pool.backends["b0"].ejections == 7

    def test_when_its_client_leaves_the_next_one_tries(self) -> None:
        pool = made()
        fails(pool, "b0")
        passes(pool, 10.0)
        backend, started = self.trial(pool)
        pool.end(backend, started, CLIENT_GONE)
        assert out(pool) == []
        backend, started = self.trial(pool)
        assert out(pool) == ["b0"]
        pool.end(backend, started, None, 200)
        assert out(pool) == []

    def test_attempts_of_before_decide_nothing(self) -> None:
        pool = made()
        backend = pool.backends["b0"]
        started = pool.clock.time()
        for _ in range(3):
            pool.start(backend)
        fails(pool, "b0")
        pool.end(backend, started, None, 200)
        assert out(pool) == ["b0"]
        passes(pool, 10.0)
        trial, began = self.trial(pool)
        pool.end(backend, started, None, 200)
        assert out(pool) == ["b0"]
        pool.end(backend, started, RESET)
        assert pool.backends["b0"].ejections == 1
        pool.end(trial, began, None, 200)
        assert out(pool) == []

    def test_a_tunnel_has_succeeded_when_it_begins(self) -> None:
        """It may last for hours, in which the backend would get nothing else."""
        pool = made()
        fails(pool, "b0")
        passes(pool, 10.0)
        backend, started = self.trial(pool)
        assert out(pool) == ["b0"]
        pool.switched(backend, started)
        assert out(pool) == []
        fails(pool, "b0", 4)
        assert out(pool) == []
        pool.end(backend, started, RESPONSE_CUT, 101)
        assert out(pool) == ["b0"], "its end is one like any other"

    def test_a_tunnel_of_before_decides_nothing(self) -> None:
        pool = made()
        backend = pool.backends["b0"]
        started = pool.clock.time()
        pool.start(backend)
        fails(pool, "b0")
        passes(pool, 10.0)
        trial, began = self.trial(pool)
        pool.switched(backend, started)
        assert out(pool) == ["b0"]
        pool.end(backend, started, None, 101)
        assert out(pool) == ["b0"]
        pool.end(trial, began, None, 200)
        assert out(pool) == []

    def test_time_without_an_ejection_takes_doublings_back(self) -> None:
        pool = made()
        fails(pool, "b0")
        passes(pool, 10.0)
        for _ in range(2):
            backend, started = self.trial(pool)
            pool.end(backend, started, RESET)
            passes(pool, 40.0)
        backend, started = self.trial(pool)  # three in a row: 10, 20, 40 s; the next one would be 80
        pool.end(backend, started, None, 200)
        passes(pool, 20.0)
        fails(pool, "b0")
        ejection = backend.ejection
        assert ejection is not None
        assert ejection.until - pool.clock.time() == 20.0

    def test_backends_may_be_back_at_the_same_time(self) -> None:
        pool = made()
        fails(pool, "b0")
        fails(pool, "b1")
        passes(pool, 10.0)
        assert set(served(pool, 8)) == {"b0", "b1", "b2", "b3"}
        assert out(pool) == []


class TestByRate:
    RULES = replace(DEFAULT, consecutive_failures=0, failure_rate=0.5)

    def mixed(self, pool: Pool, name: str, good: int, bad: int) -> None:
        for _ in range(good):
            attempted(pool, name)
        fails(pool, name, bad)

    def test_a_share_of_failures_ejects_at_the_end_of_the_interval(self) -> None:
        pool = made(self.RULES)
        self.mixed(pool, "b0", 10, 10)
        self.mixed(pool, "b1", 11, 10)
        self.mixed(pool, "b2", 0, 19)  # too few to tell
        assert out(pool) == []
        passes(pool, 10.0)
        assert out(pool) == ["b0"]
        assert pool.backends["b0"].excluded == "ejected (10 of 20 attempts failed, for 10 s)"

    def test_intervals_are_judged_each_by_itself(self) -> None:
        pool = made(self.RULES)
        self.mixed(pool, "b0", 0, 15)
        passes(pool, 10.0)
        self.mixed(pool, "b0", 0, 15)
        passes(pool, 10.0)
        assert out(pool) == []

    def test_bad_answers_and_answers_that_broke_off_count_once(self) -> None:
        pool = made(self.RULES)
        for _ in range(10):
            attempted(pool, "b0", status=503)
            attempted(pool, "b0")
        for _ in range(9):
            pool.start(pool.backends["b1"])
            pool.end(pool.backends["b1"], pool.clock.time(), RESET, 0)
        for _ in range(11):
            attempted(pool, "b1")
        passes(pool, 10.0)
        assert out(pool) == ["b0"]

    def test_idle_connections_that_had_broken_count_neither_way(self) -> None:
        pool = made(self.RULES)
        backend = pool.backends["b0"]
        for _ in range(20):
            pool.start(backend)
            pool.end(backend, pool.clock.time(), RESET, stale=True)
        self.mixed(pool, "b0", 20, 1)
        self.mixed(pool, "b1", 10, 10)
        passes(pool, 10.0)
        assert out(pool) == ["b1"]

    def test_what_was_before_the_rule_does_not_count(self) -> None:
        pool = made_pool(numbered([1] * 4), "round_robin")
        self.mixed(pool, "b0", 0, 100)
        pool.configure(PoolRules(outliers=self.RULES))
        passes(pool, 10.0)
        assert out(pool) == []
        self.mixed(pool, "b0", 0, 20)
        passes(pool, 10.0)
        assert out(pool) == ["b0"]


class TestRulesThatChange:
    def test_who_is_out_stays_out(self) -> None:
        pool = made()
        fails(pool, "b0")
        pool.configure(PoolRules(outliers=replace(DEFAULT, consecutive_failures=2)))
        assert out(pool) == ["b0"]
        fails(pool, "b1", 2)
        assert out(pool) == ["b0", "b1"]

    def test_turned_off_all_are_back(self) -> None:
        pool = made()
        fails(pool, "b0")
        pool.configure(PoolRules())
        assert out(pool) == []
        fails(pool, "b0", 50)
        passes(pool, 1000.0)
        assert out(pool) == []

    def test_without_enforcing_it_only_counts(self) -> None:
        pool = made(replace(DEFAULT, enforce=False), count=1)
        fails(pool, "b0", 14)
        assert out(pool) == []
        assert pool.backends["b0"].ejections == 2

    def test_a_reload_keeps_who_is_out(self) -> None:
        pool = made()
        fails(pool, "b0")
        pool.update(numbered([3] * 4))
        assert out(pool) == ["b0"]

    def test_closed_it_starts_no_timers(self) -> None:
        pool = made(replace(DEFAULT, failure_rate=0.1))
        fails(pool, "b0")
        pool.close()
        assert pool.backends["b0"].ejection is None


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["good", "bad", "gone", "start", "time", "up", "down", "members"]),
            st.integers(0, 4),
            st.floats(0.0, 30.0),
        ),
        max_size=80,
    ),
    most=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_whatever_happens_someone_serves_and_everyone_comes_back(
    steps: list[tuple[str, int, float]], most: float
) -> None:
    """As long as one is healthy there is an eligible one, and in the end all are well again."""
    pool = made(replace(DEFAULT, consecutive_failures=2, max_ejected=most, failure_rate=0.5), count=5)
    running: list[tuple[Backend, float]] = []
    for what, which, seconds in steps:
        backend = pool.backends.get(f"b{which}")
        if what == "time":
            passes(pool, seconds)
        elif what == "members":
            pool.update(numbered([1] * (which + 1)))
        elif backend is None:
            continue
        elif what in ("up", "down"):
            pool.set_health(backend, what == "up")
        elif what == "start" and pool.eligible:
            chosen = picked(pool)
            pool.start(chosen)
            running.append((chosen, pool.clock.time()))
        elif running:
            chosen, started = running.pop(which % len(running))
            failure = {"bad": RESET, "gone": CLIENT_GONE}.get(what)
            pool.end(chosen, started, failure, 0 if failure else 200)
        active = [each for each in pool.backends.values() if each.active]
        assert len(out(pool)) <= int(most * len(active) + 1e-9)
        assert bool(pool.eligible) == any(each.healthy for each in active)
        assert all(each.failed_in_row for each in active if each.ejection is not None)
    for chosen, started in running:
        pool.end(chosen, started, CLIENT_GONE)
    for backend in pool.backends.values():
        pool.set_health(backend, True)
    for _ in range(20):
        passes(pool, 300.0)
        served(pool, 50)
    assert len(pool.eligible) == len(pool.backends)
    assert all(each.ejection is None for each in pool.backends.values())
