"""The pool: one place that diffs the set, picks from it, and counts for it."""

import logging
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from lb.balance import Balancer, policies, policy_class
from lb.core.backend import ACTIVE, DISABLED, DRAINING, Backend, BackendSpec
from lb.core.failure import AT_LIMIT, BAD_REQUEST, CLIENT_GONE, NO_BACKENDS, NO_ELIGIBLE, RESET, Failure
from lb.core.pool import Pool
from lb.core.rules import PoolRules, RetryRules
from lb.core.seen import REMEMBERED
from tests.core.fleet import FirstOfAll, ids, load, made_pool, numbered, picked, served, specs


class TestUpdate:
    """A whole set comes; the pool finds out what has changed."""

    def test_a_survivor_keeps_what_is_known_of_it(self) -> None:
        pool = made_pool(specs(a=1, b=1))
        survivor = pool.backends["a"]
        pool.start(survivor)
        pool.set_state(survivor, DRAINING)
        pool.set_health(survivor, False)
        served_by_b = served(pool, 3)
        pool.update(specs(c=1, a=1))
        assert list(pool.backends) == ["c", "a"]
        assert pool.backends["a"] is survivor
        assert (survivor.in_flight, survivor.state, survivor.healthy) == (1, DRAINING, False)
        assert served_by_b == ["b", "b", "b"]
        assert ids(pool.eligible) == ["c"]

    def test_a_changed_address_is_another_backend(self) -> None:
        pool = made_pool(specs(a=1, b=1))
        before = pool.backends["a"]
        served(pool, 5)
        gone: list[Backend] = []
        pool.on_removed = gone.append
        pool.update([BackendSpec("a", "a.test", 9001), *specs(b=1)])
        after = pool.backends["a"]
        assert after is not before
        assert (after.requests, before.requests) == ({}, {200: 5})
        assert gone == [before]

    def test_who_goes_is_told_of_once_and_after_the_change(self) -> None:
        pool = made_pool(specs(a=1, b=1, c=1))
        told: list[tuple[str, list[str]]] = []
        pool.on_removed = lambda backend: told.append((backend.id, ids(pool.eligible)))
        pool.update(specs(b=1))
        assert told == [("a", ["b"]), ("c", ["b"])]
        pool.update(specs(b=1))
        assert len(told) == 2

    def test_a_new_weight_counts_and_the_same_spec_leaves_a_set_weight_alone(self) -> None:
        pool = made_pool(specs(a=1, b=1))
        backend = pool.backends["a"]
        pool.set_weight(backend, 7)
        pool.update(specs(a=1, b=1))
        assert backend.weight == 7
        pool.update(specs(a=3, b=1))
        assert backend.weight == 3
        assert backend.spec.weight == 3

    def test_a_new_backend_waits_for_its_first_probe_where_there_are_probes(self) -> None:
        pool = made_pool(specs(a=1), starts_healthy=False)
        assert pool.pick(None) is NO_ELIGIBLE
        pool.set_health(pool.backends["a"], True)
        pool.update(specs(a=1, b=1))
        assert ids(pool.eligible) == ["a"]
        assert picked(pool).id == "a"

    def test_all_may_go_and_come_back(self) -> None:
        pool = made_pool(specs(a=1, b=1))
        pool.update([])
        assert pool.pick(None) is NO_BACKENDS
        pool.update(specs(b=1))
        assert picked(pool).id == "b"


class TestEligible:
    @pytest.mark.parametrize("state", [DRAINING, DISABLED])
    def test_state(self, state: str) -> None:
        pool = made_pool(specs(a=1, b=1))
        pool.set_state(pool.backends["a"], state)
        assert ids(pool.eligible) == ["b"]
        assert pool.view.excluded == (("a", state),)
        pool.set_state(pool.backends["a"], ACTIVE)
        assert ids(pool.eligible) == ["a", "b"]
        assert pool.view.excluded == ()

    def test_health(self) -> None:
        pool = made_pool(specs(a=1, b=1))
        pool.set_health(pool.backends["b"], False)
        assert ids(pool.eligible) == ["a"]
        assert pool.view.excluded == (("b", "unhealthy"),)
        pool.set_health(pool.backends["b"], True)
        assert ids(pool.eligible) == ["a", "b"]

    def test_weight(self) -> None:
        pool = made_pool(specs(a=0, b=1))
        assert ids(pool.eligible) == ["b"]
        pool.set_weight(pool.backends["a"], 1)
        pool.set_weight(pool.backends["b"], 0)
        assert ids(pool.eligible) == ["a"]
        assert pool.view.excluded == (("b", "weight 0"),)

    def test_the_set_is_rebuilt_by_changes_and_not_by_requests(self) -> None:
        rebuilds: list[list[str]] = []

        class Watching(FirstOfAll):
            def rebuild(self, backends: Sequence[Backend]) -> None:
                rebuilds.append(ids(backends))

        pool = made_pool(specs(a=1, b=1), Watching)
        served(pool, 10)
        pool.set_health(pool.backends["a"], True)  # which it was before
        assert rebuilds == [["a", "b"]]
        pool.set_health(pool.backends["a"], False)
        assert rebuilds == [["a", "b"], ["b"]]


class TestPick:
    def test_no_backend_at_all(self) -> None:
        pool = made_pool()
        assert pool.pick(None) is NO_BACKENDS
        assert pool.pick(None) is NO_BACKENDS
        assert pool.rejected == {"no_backends": 2}

    def test_none_that_may_be_used(self) -> None:
        pool = made_pool(specs(a=0, b=1))
        pool.set_health(pool.backends["b"], False)
        assert pool.pick(None) is NO_ELIGIBLE
        assert pool.rejected == {"no_eligible_backend": 1}
        view, loads, drawn, *_ = pool.seen()
        assert view.excluded == (("a", "weight 0"), ("b", "unhealthy"))
        assert (view.candidates, view.candidates_total, loads, drawn) == ((), 0, (), ())

    def test_a_tried_one_only_where_no_other_is_left(self) -> None:
        pool = made_pool(specs(a=1, b=1))
        a, b = pool.backends.values()
        assert picked(pool, tried=[a]) is b
        assert picked(pool, tried=[b]) is a
        assert picked(pool, tried=[a, b]) in (a, b)
        assert pool.rejected == {}

    def test_a_single_candidate_needs_no_policy(self) -> None:
        class Never(Balancer):
            """Fails where it is asked."""

        pool = made_pool(specs(a=1), Never)
        assert picked(pool).id == "a"
        assert pool.policy_errors == 0
        assert pool.seen()[3] == "the only candidate"

    def test_what_was_seen(self) -> None:
        pool = made_pool(specs(a=1, b=1, c=0))
        a, b, _ = pool.backends.values()
        pool.start(b)
        picked(pool)
        view, loads, drawn, reason, *_ = pool.seen()
        assert (view.candidates, view.candidates_total, loads) == ((a, b), 2, (0, 1))
        assert (view.excluded, view.excluded_total) == ((("c", "weight 0"),), 1)
        assert (drawn, reason) == ((), "the first")
        assert view.policy == "tests.core.fleet:FirstOfAll"

    def test_who_was_tried_is_no_candidate_and_said_once(self) -> None:
        pool = made_pool(specs(a=1, b=1, c=1, d=1))
        a, b, c, d = pool.backends.values()
        pool.set_health(b, False)
        picked(pool, tried=[a, b])
        view, loads, *_ = pool.seen()
        assert (view.candidates, view.candidates_total, loads) == ((c, d), 2, (0, 0))
        assert sorted(name for name, _ in view.excluded) == ["a", "b"]
        assert view.excluded_total == 2

    def test_of_a_large_pool_only_what_the_policy_drew_is_remembered(self) -> None:
        pool = made_pool(numbered([1] * 100), "p2c")
        picked(pool)
        view, loads, drawn, *_ = pool.seen()
        assert (view.candidates, view.candidates_total) == ((), 100)
        assert len(loads) == len(drawn) == 2
        for backend in pool.backends.values():
            pool.set_health(backend, False)
        assert len(pool.view.excluded) == REMEMBERED
        assert pool.view.excluded_total == 100


class TestEnd:
    def test_an_answer_is_counted(self) -> None:
        pool = made_pool(specs(a=1))
        backend = picked(pool)
        started = pool.clock.time()
        pool.start(backend)
        assert backend.in_flight == 1
        pool.end(backend, started, None, 200, started + 0.02, sent=10, received=14, ended=started + 0.2)
        pool.start(backend)
        pool.end(backend, started, None, 404, sent=1, received=2)
        assert backend.in_flight == 0
        assert backend.requests == {200: 1, 404: 1}
        assert backend.failures == {}
        assert (backend.sent, backend.received) == (11, 16)
        assert dict(backend.duration.cumulative())["0.1"] == 1
        assert dict(backend.duration.cumulative())["+Inf"] == 2
        assert backend.duration.total == pytest.approx(0.2)
        assert backend.first_byte.total == pytest.approx(0.02)
        assert dict(backend.first_byte.cumulative())["+Inf"] == 1

    def test_a_backends_failure_is_counted_by_name_and_has_no_duration(self) -> None:
        pool = made_pool(specs(a=1))
        backend = pool.backends["a"]
        for failure, status in ((RESET, 0), (RESET, 200)):
            pool.start(backend)
            pool.end(backend, pool.clock.time(), failure, status)
        assert backend.failures == {"reset": 2}
        assert backend.requests == {200: 1}
        assert sum(backend.duration.counts) == 0
        assert backend.in_flight == 0

    @pytest.mark.parametrize("failure", [CLIENT_GONE, BAD_REQUEST])
    def test_a_clients_failure_is_not_the_backends(self, failure: Failure) -> None:
        pool = made_pool(specs(a=1))
        pool.start(pool.backends["a"])
        pool.end(pool.backends["a"], pool.clock.time(), failure)
        assert pool.backends["a"].failures == {}
        assert pool.backends["a"].in_flight == 0

    def test_connections_are_timed(self) -> None:
        pool = made_pool(specs(a=1))
        pool.connected(pool.backends["a"], 0.003)
        assert dict(pool.backends["a"].connect.cumulative())["0.005"] == 1

    def test_a_backend_that_has_left_is_counted_to_its_end(self) -> None:
        pool = made_pool(specs(a=1, b=1), "least_request")
        gone = pool.backends["a"]
        pool.start(gone)
        pool.update(specs(b=1))
        pool.end(gone, pool.clock.time(), None, 200)
        assert (gone.in_flight, gone.requests) == (0, {200: 1})


def foreign(pool: Pool) -> object:
    return Backend(BackendSpec("stranger", "stranger.test", 1))


def removed(pool: Pool) -> object:
    gone = pool.backends["gone"]
    pool.update(specs(a=1, b=1))
    return gone


def weightless(pool: Pool) -> object:
    backend = pool.backends["gone"]
    pool.set_weight(backend, 0)
    return backend


def unhealthy(pool: Pool) -> object:
    backend = pool.backends["gone"]
    pool.set_health(backend, False)
    return backend


class TestAPolicyThatFails:
    """Requests go on: the least busy backend serves them, and it is counted and logged."""

    class Raising(Balancer):
        def pick(self, request: object, backends: Sequence[Backend]) -> Backend:
            raise ZeroDivisionError("oh")

    class Stubborn(Balancer):
        """Returns what it was given, be it what it may."""

        answer: object = None

        def pick(self, request: object, backends: Sequence[Backend]) -> Backend:
            return self.answer  # type: ignore[return-value]

    def test_raising(self, caplog: pytest.LogCaptureFixture) -> None:
        pool = made_pool(specs(a=1, b=1, c=1), self.Raising)
        for name in "ac":
            pool.start(pool.backends[name])
        with caplog.at_level(logging.ERROR, "lb.pool"):
            assert [picked(pool).id for _ in range(5)] == ["b"] * 5
        assert pool.policy_errors == 5
        [record] = caplog.records
        assert "greeter" in record.getMessage()
        assert "ZeroDivisionError" in record.getMessage()
        assert record.exc_info is not None
        assert "ZeroDivisionError" in pool.seen()[3]

    @pytest.mark.parametrize("stranger", [foreign, removed, weightless, unhealthy])
    def test_a_stranger(self, stranger: object) -> None:
        pool = made_pool(specs(a=1, b=1, gone=1), self.Stubborn)
        assert isinstance(pool.policy, self.Stubborn)
        pool.policy.answer = stranger(pool)  # type: ignore[operator]
        assert picked(pool).id in ("a", "b")
        assert pool.policy_errors == 1

    @pytest.mark.parametrize("answer", [None, "a", 0])
    def test_no_backend_at_all(self, answer: object, caplog: pytest.LogCaptureFixture) -> None:
        pool = made_pool(specs(a=1, b=1), self.Stubborn)
        assert isinstance(pool.policy, self.Stubborn)
        pool.policy.answer = answer
        assert picked(pool).id in ("a", "b")
        assert pool.policy_errors == 1
        assert f"it picked {answer!r}, which is not eligible" in caplog.text

    def test_one_that_was_tried(self) -> None:
        pool = made_pool(specs(a=1, b=1, c=1), self.Stubborn)
        assert isinstance(pool.policy, self.Stubborn)
        tried = pool.policy.answer = pool.backends["a"]
        assert picked(pool, tried=[tried]) is not tried


class TestAPolicyThatSaysNonsense:
    """What it says of a pick is for people who ask. It costs no request."""

    @pytest.mark.parametrize(
        ("attribute", "value"), [("looked", None), ("looked", [None]), ("looked", 5), ("scores", None)]
    )
    @pytest.mark.parametrize("count", [3, 20])
    def test(self, attribute: str, value: object, count: int) -> None:
        pool = made_pool(numbered([1] * count))
        setattr(pool.policy, attribute, value)
        picked(pool)
        view, loads, drawn, reason, scores, _ = pool.seen()
        if attribute == "looked" and value == [None] and count == 3:
            return  # nobody asks these for their load
        assert (len(loads), drawn, scores) == (len(view.candidates), (), ())
        assert reason in ("it didn't say (TypeError)", "it didn't say (AttributeError)")
        assert pool.policy_errors == 1


def test_a_policy_is_named_by_its_own_name_or_its_class() -> None:
    class Derived(type(made_pool(policy="p2c").policy)):  # type: ignore[misc]
        """Inherits a registered policy without registering itself."""

    clock = made_pool().clock
    assert made_pool(policy="p2c").policy_name == "p2c"
    assert Pool("x", Derived(clock, Random(1)), clock).policy_name.endswith(
        ":test_a_policy_is_named_by_its_own_name_or_its_class.<locals>.Derived"
    )


class TestWhatASourceMaySend:
    def test_an_id_twice_is_refused_and_changes_nothing(self) -> None:
        pool = made_pool(specs(a=1, b=1))
        before = dict(pool.backends)
        a = pool.backends["a"].spec
        with pytest.raises(ValueError, match="the same ID"):
            pool.update([a, a])
        assert pool.backends == before


@pytest.mark.parametrize("hook", ["rebuild", "on_start", "on_end"])
def test_a_policy_that_fails_in_a_hook_costs_no_request(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("broken")

    class Broken(Balancer):
        def pick(self, request: object, backends: Sequence[Backend]) -> Backend:
            return backends[0]

    setattr(Broken, hook, broken)
    pool = made_pool(specs(a=1, b=1), Broken)
    backend = picked(pool)
    pool.start(backend)
    pool.end(backend, 0.0, None, 200)
    assert (backend.in_flight, backend.requests) == (0, {200: 1})
    assert pool.policy_errors == 1


class Counting(FirstOfAll):
    """Counts attempts by itself, as a policy may."""

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self.counts = {backend: getattr(self, "counts", {}).get(backend, 0) for backend in backends}

    def on_start(self, backend: Backend) -> None:
        self.counts[backend] += 1

    def on_end(self, backend: Backend, started: float, failure: Failure | None) -> None:
        self.counts[backend] -= 1
        assert self.counts[backend] >= 0


class TestAReload:
    """Rules and policy may change under traffic."""

    @pytest.mark.parametrize("policy", [Counting, *policies().values()])
    def test_a_new_policy_knows_what_is_in_flight(self, policy: type[Balancer]) -> None:
        pool = made_pool(specs(a=1, b=1, c=1))
        started = pool.clock.time()
        load(pool, a=2, b=1)
        pool.replace_policy(policy(pool.clock, Random(1)))
        for name in "aab":
            pool.end(pool.backends[name], started, None, 200)
        new = served(pool, 30)
        assert pool.policy_errors == 0
        assert pool.policy_name.endswith(policy.__dict__.get("name") or policy.__qualname__)
        if policy is Counting:
            assert isinstance(pool.policy, Counting)
            assert set(pool.policy.counts.values()) == {0}
        elif policy.name in ("least_request", "round_robin"):
            assert Counter(new) == {"a": 10, "b": 10, "c": 10}

    def test_the_least_busy_is_known_at_once_and_after_the_old_ones_have_ended(self) -> None:
        pool = made_pool(specs(a=1, b=1), "round_robin")
        started = pool.clock.time()
        load(pool, a=3)
        pool.replace_policy(policy_class("least_request")(pool.clock, Random(1)))
        assert picked(pool).id == "b"
        load(pool, b=1)
        for _ in range(3):
            pool.end(pool.backends["a"], started, None, 200)
        assert picked(pool).id == "a"

    def test_a_failing_policy_is_told_of_again_after_another_one(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        pool = made_pool(specs(a=1, b=1), TestAPolicyThatFails.Raising)
        picked(pool)
        pool.replace_policy(TestAPolicyThatFails.Raising(pool.clock, Random(1)))
        picked(pool)
        picked(pool)
        assert (pool.policy_errors, len(caplog.records)) == (3, 2)

    def test_rules_come_and_go(self) -> None:
        pool = made_pool(specs(a=1, b=1))
        assert pool.budget is None
        pool.configure(PoolRules(retries=RetryRules(share=0.5, least=1), queue=3))
        budget = pool.budget
        assert budget is not None
        assert (budget.share, budget.least, pool.waiting.most) == (0.5, 1, 3)
        assert [budget.take(1000.0) for _ in range(11)] == [True] * 10 + [False]
        pool.configure(PoolRules(retries=RetryRules(share=0.1, least=1)))
        assert pool.budget is budget, "what was taken is taken"
        assert not budget.take(1000.0)
        pool.configure(PoolRules())
        assert (pool.budget, pool.waiting.most) == (None, 0)

    def test_attempts_are_counted_from_the_first(self) -> None:
        pool = made_pool(specs(a=1, b=1))
        load(pool, a=2)
        pool.configure(PoolRules(requests=2))
        assert pool.pick(None) is AT_LIMIT


def test_a_backend_is_announced_before_it_can_be_picked() -> None:
    pool = made_pool()
    told: list[tuple[str, list[str]]] = []
    pool.on_added = lambda backend: told.append((backend.id, ids(pool.eligible)))
    pool.update(specs(a=1))
    pool.update(specs(a=1, b=1))
    assert told == [("a", []), ("b", ["a"])]


def test_retries_are_counted_where_they_were_needed() -> None:
    pool = made_pool(specs(a=1, b=1))
    pool.retried(pool.backends["a"])
    assert [backend.retries for backend in pool.backends.values()] == [1, 0]
