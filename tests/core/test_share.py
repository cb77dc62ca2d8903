"""Newcomers start slowly, higher tiers stand by, and where hardly anyone is well all are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.balance import Balancer, policies
from lb.core.backend import ACTIVE, DISABLED, Backend, BackendSpec
from lb.core.failure import RESET
from lb.core.pool import Pool
from lb.core.rules import OutlierRules, PoolRules
from lb.core.share import tier_loads
from tests.balance.chance import assert_shares
from tests.core.fleet import FirstOfAll, attempted, ids, made_pool, numbered, passes, picked, served, specs

every_policy = pytest.mark.parametrize("policy", policies())


class EachInTurn(Balancer):
    """Knows nothing of weights."""

    weighted = False
    turn = 0

    def pick(self, request: object, backends: Sequence[Backend]) -> Backend:
        self.turn += 1
        return backends[self.turn % len(backends)]


class TheFirst(FirstOfAll):
    """Neither does this one, and it insists."""

    weighted = False


def starting(policy: str | type[Balancer] = "round_robin", seconds: float = 30.0) -> Pool:
    """Three backends that have been there, and one that comes now."""
    pool = made_pool(specs(a=1, b=1, c=1), policy, rules=PoolRules(slow_start=seconds))
    pool.update(specs(a=1, b=1, c=1, new=1))
    return pool


def share(pool: Pool, name: str) -> float:
    return pool.backends[name].share


class TestSlowStart:
    def test_the_first_ones_have_nobody_to_stand_behind(self) -> None:
        pool = made_pool(specs(a=1, b=2), rules=PoolRules(slow_start=30.0))
        assert [(each.share, each.weight) for each in pool.backends.values()] == [(1.0, 1), (1.0, 2)]

    def test_a_newcomer_begins_with_a_tenth_and_gets_all_in_the_end(self) -> None:
        pool = starting()
        assert share(pool, "new") == pytest.approx(0.1)
        passes(pool, 15.0)
        assert share(pool, "new") == pytest.approx(0.55)
        passes(pool, 15.0)
        assert share(pool, "new") == 1.0
        assert len({each.weight for each in pool.backends.values()}) == 1

    @every_policy
    def test_every_policy_heeds_it(self, policy: str) -> None:
        pool = starting(policy)
        expected = {"a": 1 / 3.1, "b": 1 / 3.1, "c": 1 / 3.1, "new": 0.1 / 3.1}
        assert_shares(Counter(served(pool, 5000)), 5000, expected)
        passes(pool, 30.0)
        assert_shares(Counter(served(pool, 5000)), 5000, dict.fromkeys(expected, 0.25))

    @pytest.mark.parametrize(("policy", "least", "most"), [(EachInTurn, 0.02, 0.04), (TheFirst, 0.07, 0.13)])
    def test_where_the_policy_knows_no_weights_the_pool_draws_again(
        self, policy: type[Balancer], least: float, most: float
    ) -> None:
        pool = made_pool(specs(b=1, c=1, d=1), policy, rules=PoolRules(slow_start=30.0))
        pool.update(specs(a=1, b=1, c=1, d=1))
        counts = Counter(served(pool, 5000))
        assert least < counts["a"] / 5000 < most
        assert pool.policy_errors == 0
        passes(pool, 30.0)
        expected = 1.0 if policy is TheFirst else 0.25
        assert Counter(served(pool, 1000))["a"] / 1000 == expected

    def test_steps_are_made_by_the_clock_and_not_by_requests(self) -> None:
        rebuilds = Counter[str]()

        class Watching(FirstOfAll):
            def rebuild(self, backends: Sequence[Backend]) -> None:
                rebuilds["rebuild"] += 1

        pool = starting(Watching, seconds=100.0)
        rebuilds.clear()
        served(pool, 1000)
        assert not rebuilds
        passes(pool, 1000.0)
        assert 50 <= rebuilds["rebuild"] <= 51
        pool = starting(Watching, seconds=5.0)
        rebuilds.clear()
        passes(pool, 1000.0)
        assert rebuilds["rebuild"] == 5, "no more than one a second"

    def test_who_is_well_again_starts_slowly(self) -> None:
        pool = made_pool(specs(a=1, b=1), rules=PoolRules(slow_start=30.0))
        b = pool.backends["b"]
        pool.set_health(b, False)
        pool.set_health(b, True)
        assert share(pool, "b") == pytest.approx(0.1)
        passes(pool, 10.0)
        pool.set_health(b, False)
        passes(pool, 100.0)
        pool.set_health(b, True)
        assert share(pool, "b") == pytest.approx(0.1), "and anew when it falls ill on the way"

    def test_who_was_turned_off_starts_slowly(self) -> None:
        pool = made_pool(specs(a=1, b=1), rules=PoolRules(slow_start=30.0))
        pool.set_state(pool.backends["b"], DISABLED)
        pool.set_state(pool.backends["b"], ACTIVE)
        assert share(pool, "b") == pytest.approx(0.1)

    def test_who_is_back_from_an_ejection_starts_slowly(self) -> None:
        pool = made_pool(specs(a=1, b=1), rules=PoolRules(slow_start=30.0, outliers=OutlierRules()))
        for _ in range(5):
            attempted(pool, "b", RESET)
        passes(pool, 10.0)
        attempted(pool, "b")
        assert share(pool, "b") == pytest.approx(0.1)

    def test_a_fleet_that_comes_up_at_once_serves_alike(self) -> None:
        """Probes find one well a little before the others; they are all cold."""
        rules = PoolRules(slow_start=30.0)
        pool = made_pool(specs(a=1, b=1, c=1), starts_healthy=False, rules=rules)
        for backend in pool.backends.values():
            pool.set_health(backend, True)
            passes(pool, 0.01)
        assert [each.share for each in pool.backends.values()] == pytest.approx([1.0] * 3, rel=0.01)
        passes(pool, 10.0)
        pool.update(specs(a=1, b=1, c=1, d=1))
        pool.set_health(pool.backends["d"], True)
        assert share(pool, "d") == pytest.approx(0.25, rel=0.01)  # of those who are at 40 %

    def test_if_all_start_nobody_is_slow(self) -> None:
        pool = starting()
        pool.update(specs(new=1))
        assert (share(pool, "new"), ids(pool.eligible)) == (1.0, ["new"])
        pool.update(specs(x=1, y=1))
        assert [each.share for each in pool.backends.values()] == [1.0, 1.0]

    def test_turned_off_all_get_all(self) -> None:
        pool = starting()
        pool.configure(PoolRules())
        assert share(pool, "new") == 1.0
        passes(pool, 100.0)

    def test_people_see_the_weight_that_was_set(self) -> None:
        pool = starting()
        new = pool.backends["new"]
        pool.set_weight(new, 4)
        assert new.configured_weight == 4
        assert new.weight == pytest.approx(0.4 * pool.backends["a"].weight)
        assert pool.view.weights == (1, 1, 1, 4)


def tiered(*tiers: int, policy: str | type[Balancer] = "random", panic: float = 0.0) -> Pool:
    """Backends b0, b1, … of these tiers."""
    made = [BackendSpec(f"b{number}", "h", number, 1, tier) for number, tier in enumerate(tiers)]
    return made_pool(made, policy, rules=PoolRules(panic_threshold=panic))


def falls_ill(pool: Pool, *numbers: int) -> None:
    for number in numbers:
        pool.set_health(pool.backends[f"b{number}"], False)


class TestTiers:
    def test_a_higher_tier_stands_by(self) -> None:
        pool = tiered(0, 0, 1, 1)
        assert ids(pool.eligible) == ["b0", "b1"]
        assert pool.view.excluded == (("b2", "standby"), ("b3", "standby"))

    def test_a_tier_that_is_gone_is_replaced(self) -> None:
        pool = tiered(0, 0, 1, 2)
        falls_ill(pool, 0, 1)
        assert ids(pool.eligible) == ["b2"]
        falls_ill(pool, 2)
        assert ids(pool.eligible) == ["b3"]
        pool.set_health(pool.backends["b1"], True)
        assert ids(pool.eligible) == ["b1", "b3"]  # 70 % of the traffic is all that half a tier takes

    @every_policy
    def test_what_a_tier_cannot_take_the_next_one_does(self, policy: str) -> None:
        pool = tiered(0, 0, 1, 1, policy=policy)
        falls_ill(pool, 0)
        assert_shares(Counter(served(pool, 5000)), 5000, {"b1": 0.7, "b2": 0.15, "b3": 0.15})

    def test_where_the_policy_knows_no_weights_too(self) -> None:
        pool = tiered(*[0] * 20, *[1] * 10, policy=EachInTurn)
        falls_ill(pool, *range(10))
        counts = Counter(served(pool, 5000))
        assert 0.6 < sum(counts[f"b{number}"] for number in range(10, 20)) / 5000 < 0.8

    def test_a_small_loss_is_borne(self) -> None:
        pool = tiered(0, 0, 0, 0, 1)
        falls_ill(pool, 0)
        assert ids(pool.eligible) == ["b1", "b2", "b3"]

    def test_who_was_taken_out_is_not_missed(self) -> None:
        pool = tiered(0, 0, 1)
        pool.set_state(pool.backends["b0"], DISABLED)
        assert ids(pool.eligible) == ["b1"]

    def test_a_tier_may_change(self) -> None:
        pool = tiered(0, 1)
        pool.update([BackendSpec("b0", "h", 0, 1, 1), BackendSpec("b1", "h", 1)])
        assert ids(pool.eligible) == ["b1"]
        pool.update([BackendSpec("b0", "h", 0), BackendSpec("b1", "h", 1)])
        assert ids(pool.eligible) == ["b0", "b1"]

    @pytest.mark.parametrize(
        ("health", "loads"),
        [
            ({0: 1.0, 1: 1.0}, {0: 1.0}),
            ({0: 0.7, 1: 1.0}, {0: 0.7, 1: 0.3}),
            ({0: 0.5, 1: 0.25, 2: 1.0}, {0: 0.5, 1: 0.25, 2: 0.25}),
            ({0: 0.2, 1: 0.2}, {0: 0.5, 1: 0.5}),
            ({0: 0.0, 1: 0.1}, {1: 1.0}),
            ({0: 0.0, 1: 0.0}, {}),
            ({}, {}),
        ],
    )
    def test_loads(self, health: dict[int, float], loads: dict[int, float]) -> None:
        """Envoy's tables: https://www.envoyproxy.io/docs/envoy/latest (priority levels)."""
        assert tier_loads(health) == pytest.approx(loads)

    @given(st.lists(st.floats(0.0, 1.0), max_size=5))
    def test_loads_are_all_of_the_traffic(self, health: list[float]) -> None:
        loads = tier_loads(dict(enumerate(health)))
        assert sum(loads.values()) == pytest.approx(1.0 if any(health) else 0.0, abs=1e-6)


class TestPanic:
    def test_where_hardly_anyone_is_well_all_are_used(self) -> None:
        pool = tiered(0, 0, 0, 0, panic=0.5)
        falls_ill(pool, 0, 1)
        assert (pool.panic, ids(pool.eligible)) == (False, ["b2", "b3"])
        falls_ill(pool, 2)
        assert (pool.panic, len(pool.eligible)) == (True, 4)
        assert pool.view.panic == "only 1 of 4 can be used, less than 50%"
        assert picked(pool)
        pool.set_health(pool.backends["b0"], True)
        assert (pool.panic, pool.view.panic, ids(pool.eligible)) == (False, "", ["b0", "b3"])

    def test_not_those_that_a_person_took_out(self) -> None:
        pool = tiered(0, 0, 0, 0, panic=0.5)
        pool.set_state(pool.backends["b0"], DISABLED)
        pool.set_weight(pool.backends["b1"], 0)
        falls_ill(pool, 2, 3)
        assert ids(pool.eligible) == ["b2", "b3"]

    def test_off_nobody_serves(self) -> None:
        pool = tiered(0, 0)
        falls_ill(pool, 0, 1)
        assert (pool.panic, pool.eligible) == (False, ())

    def test_what_nobody_has_probed_yet_is_no_reason(self) -> None:
        rules = PoolRules(panic_threshold=0.5)
        pool = made_pool(specs(a=1, b=1, c=1), starts_healthy=False, rules=rules)
        assert (pool.panic, pool.eligible) == (False, ())
        pool.set_health(pool.backends["a"], True)
        assert (pool.panic, ids(pool.eligible)) == (False, ["a"])
        pool.set_health(pool.backends["b"], False)
        pool.set_health(pool.backends["c"], False)
        assert (pool.panic, len(pool.eligible)) == (True, 3)

    def test_a_tier_that_can_take_it_all_is_no_reason(self) -> None:
        pool = tiered(0, 0, 0, 1, panic=0.5)
        falls_ill(pool, 0, 1, 2)
        assert (pool.panic, ids(pool.eligible)) == (False, ["b3"])
        falls_ill(pool, 3)
        assert (pool.panic, len(pool.eligible)) == (True, 4)

    def test_the_ejected_serve_too(self) -> None:
        rules = PoolRules(panic_threshold=0.8, outliers=OutlierRules())
        pool = made_pool(numbered([1] * 4), "round_robin", rules=rules)
        for _ in range(5):
            attempted(pool, "b0", RESET)
        assert (pool.panic, len(pool.eligible)) == (True, 4)
        passes(pool, 10.0)
        assert not pool.panic
        attempted(pool, "b0")
        assert not pool.panic

    def test_all_get_all_of_their_weight(self) -> None:
        rules = PoolRules(panic_threshold=0.5, slow_start=30.0)
        pool = made_pool(specs(a=1, b=1, c=1), rules=rules)
        pool.update(specs(a=1, b=1, c=1, new=1))
        for name in "abc":
            pool.set_health(pool.backends[name], False)
        assert [each.share for each in pool.eligible] == [1.0] * 4
