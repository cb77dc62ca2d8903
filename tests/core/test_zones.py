"""Backends of our own zone come first, for as long as they can bear it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.balance import policies
from lb.core.backend import BackendSpec
from lb.core.pool import Pool
from lb.core.rules import PoolRules, ZoneRules
from tests.balance.chance import assert_shares
from tests.core.fleet import ids, made_pool, passes, served, specs
from tests.core.test_share import EachInTurn

every_policy = pytest.mark.parametrize("policy", policies())


def zoned(zones: str, tier: int = 0) -> list[BackendSpec]:
    """`zoned("aab")`: a1 and a2 in zone a, b1 in zone b."""
    seen = Counter[str]()
    made = []
    for zone in zones:
        seen[zone] += 1
        made.append(BackendSpec(f"{zone}{seen[zone]}", f"{zone}{seen[zone]}.test", 1, tier=tier, zone=zone))
    return made


def pool_in_a(backends: list[BackendSpec], policy: object = "p2c", **rules: object) -> Pool:
    zones = ZoneRules("a", **rules)  # type: ignore[arg-type]
    return made_pool(backends, policy, rules=PoolRules(zones=zones))  # type: ignore[arg-type]


def down(pool: Pool, *names: str) -> None:
    for name in names:
        pool.set_health(pool.backends[name], False)


def near_share(pool: Pool, draws: int = 4000) -> float:
    return sum(name.startswith("a") for name in served(pool, draws)) / draws


class TestOurOwnZone:
    @every_policy
    def test_takes_all_while_it_can(self, policy: str) -> None:
        pool = pool_in_a(zoned("aabbcc"), policy)
        assert set(served(pool, 300)) == {"a1", "a2"}
        assert pool.view.excluded == tuple(
            (name, f"standby (zone {name[0]})") for name in ("b1", "b2", "c1", "c2")
        )

    def test_means_nothing_where_the_balancer_is_in_none(self) -> None:
        pool = made_pool(zoned("aabb"))
        assert len(pool.eligible) == 4

    def test_means_nothing_where_no_backend_is_in_any(self) -> None:
        pool = pool_in_a(specs(x=1, y=1))
        assert ids(pool.eligible) == ["x", "y"]
        assert [each.share for each in pool.eligible] == [1.0, 1.0]

    def test_others_serve_where_it_has_none(self) -> None:
        pool = pool_in_a(zoned("bbc"))
        assert ids(pool.eligible) == ["b1", "b2", "c1"]
        assert {each.share for each in pool.eligible} == {1.0}

    def test_others_serve_when_all_of_it_is_ill_and_stand_by_again_when_it_is_well(self) -> None:
        pool = pool_in_a(zoned("aabb"))
        down(pool, "a1", "a2")
        assert ids(pool.eligible) == ["b1", "b2"]
        pool.set_health(pool.backends["a1"], True)
        pool.set_health(pool.backends["a2"], True)
        assert ids(pool.eligible) == ["a1", "a2"]

    def test_less_than_so_many_are_not_preferred(self) -> None:
        pool = pool_in_a(zoned("aabb"), least=2)
        assert ids(pool.eligible) == ["a1", "a2"]
        down(pool, "a1")
        assert ids(pool.eligible) == ["b1", "b2"] or len(pool.eligible) == 3


class TestWhatItCanNotBear:
    """A backend takes up to 1.4 times what it would if all zones shared evenly."""

    def test_a_third_less_is_borne(self) -> None:
        pool = pool_in_a(zoned("aaabbbccc"))
        down(pool, "a1")
        assert ids(pool.eligible) == ["a2", "a3"]  # 1.4 * 2/8 * 3 zones = 1.05

    @every_policy
    def test_what_is_left_spills_over(self, policy: str) -> None:
        pool = pool_in_a(zoned("aaabbbccc"), policy)
        down(pool, "a1", "a2")
        near = 1.4 * 1 / 7 * 3  # of seven that are well, and of three zones
        shares = {"a3": near} | dict.fromkeys(("b1", "b2", "b3", "c1", "c2", "c3"), (1 - near) / 6)
        assert_shares(Counter(served(pool, 5000)), 5000, shares)

    def test_a_policy_that_knows_no_weights_heeds_it_too(self) -> None:
        pool = pool_in_a(zoned("abbbbbbb"), EachInTurn, traffic=0.5)
        assert 0.25 < near_share(pool) < 0.45  # 1.4 / 8 / 0.5 = 0.35
        assert pool.policy_errors == 0

    def test_its_part_of_all_traffic_may_be_said(self) -> None:
        assert ids(pool_in_a(zoned("abbb"), traffic=0.3).eligible) == ["a1"]  # 1.4 / 4 / 0.3 > 1
        assert near_share(pool_in_a(zoned("abbb"), traffic=0.7)) == pytest.approx(0.5, abs=0.05)

    def test_an_equal_loss_everywhere_moves_nothing(self) -> None:
        pool = pool_in_a(zoned("aabbcc"))
        down(pool, "a1", "b1", "c1")
        assert ids(pool.eligible) == ["a2"]


def test_each_tier_by_itself() -> None:
    """Where tier 1 helps out, it does so from our own zone first."""
    pool = pool_in_a([*zoned("aabb"), *_second_tier()])
    down(pool, "a1", "a2", "b1")  # tier 0: 1.4 * 1/4 = 35 % of the traffic
    assert ids(pool.eligible) == ["b2", "d1"]
    assert_shares(Counter(served(pool, 4000)), 4000, {"b2": 0.35, "d1": 0.65})


def _second_tier() -> list[BackendSpec]:
    return [
        BackendSpec("d1", "d1.test", 1, tier=1, zone="a"),
        BackendSpec("d2", "d2.test", 1, tier=1, zone="b"),
    ]


def test_in_panic_all_zones_serve() -> None:
    rules = PoolRules(zones=ZoneRules("a"), panic_threshold=0.5)
    pool = made_pool(zoned("aabb"), rules=rules)
    down(pool, "a1", "b1", "b2")
    assert pool.panic
    assert len(pool.eligible) == 4


def test_newcomers_of_our_zone_start_slowly_beside_the_others() -> None:
    pool = made_pool(zoned("aab"), "round_robin", rules=PoolRules(zones=ZoneRules("a"), slow_start=30.0))
    pool.update(zoned("aaab"))
    assert_shares(Counter(served(pool, 4200)), 4200, {"a1": 1 / 2.1, "a2": 1 / 2.1, "a3": 0.1 / 2.1})
    passes(pool, 30.0)
    assert {each.share for each in pool.eligible} == {1.0}


def test_another_zone_after_a_reload() -> None:
    pool = pool_in_a(zoned("aabb"))
    pool.configure(PoolRules(zones=ZoneRules("b")))
    assert ids(pool.eligible) == ["b1", "b2"]
    pool.configure(PoolRules())
    assert len(pool.eligible) == 4


def test_a_backend_that_moves_is_noticed() -> None:
    pool = pool_in_a(zoned("aabb"))
    moved = [BackendSpec(each.id, each.host, each.port, zone="a") for each in zoned("aabb")]
    pool.update(moved)
    assert len(pool.eligible) == 4


@given(
    zones=st.text("abc", min_size=1, max_size=9),
    ill=st.sets(st.integers(0, 8)),
    traffic=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_whoever_is_well_somebody_serves(zones: str, ill: set[int], traffic: float) -> None:
    pool = pool_in_a(zoned(zones), traffic=traffic)
    names = list(pool.backends)
    down(pool, *[names[number] for number in ill if number < len(names)])
    well = [each for each in pool.backends.values() if each.healthy]
    assert bool(pool.eligible) == bool(well)
    if well:
        even = 1 / len(well)
        total = sum(each.share for each in pool.eligible)
        spilled = len({each.spec.zone == "a" for each in pool.eligible}) == 2
        for each in pool.eligible:
            if each.spec.zone == "a" and spilled and traffic == 0.0:
                count = len({"a", *zones})
                assert each.share / total <= 1.4 * even * count + 1e-9
