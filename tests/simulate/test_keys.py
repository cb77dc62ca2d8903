"""Requests with keys, and which of them move."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from lb.balance import policy_class
from lb.simulate.contestant import Contestant
from lb.simulate.keys import drawing
from lb.simulate.latency import Constant
from lb.simulate.run import KeysMoved, result_of
from lb.simulate.scenario import Crash, Keys, Probes, Scenario, Server
from lb.simulate.world import World
from tests.balance.chance import assert_share
from tests.simulate.worlds import scenario, servers

DRAWS = 20_000


@pytest.mark.parametrize(
    ("keys", "shares"),
    [
        (Keys(count=4), {f"key-{n}": 0.25 for n in range(4)}),
        (Keys(count=3, zipf=1.0), {"key-0": 6 / 11, "key-1": 3 / 11, "key-2": 2 / 11}),
        (Keys(names=("a", "b")), {"a": 0.5, "b": 0.5}),
        (Keys(names=("a", "b"), shares=(3.0, 1.0)), {"a": 0.75, "b": 0.25}),
    ],
)
def test_keys_are_drawn_as_they_should(keys: Keys, shares: dict[str, float]) -> None:
    draw = drawing(keys, Random(1))
    counts = Counter(draw().decode() for _ in range(DRAWS))
    assert set(counts) == set(shares)
    for name, share in shares.items():
        assert_share(counts[name], DRAWS, share)


def ran(world_of: Scenario, policy: str, **options: object) -> World:
    world = World(world_of, Contestant(policy, policy_class(policy), options))
    world.run()
    return world


def moved(world: World) -> KeysMoved:
    found = result_of(world).keys
    assert found is not None
    return found


@pytest.mark.parametrize("policy", ["ring_hash", "maglev", "rendezvous"])
def test_who_goes_by_keys_keeps_them_and_who_does_not_moves_them(policy: str) -> None:
    world_of = scenario(*servers(5, Constant(0.02)), keys=Keys(count=200))
    kept, spread = moved(ran(world_of, policy)), moved(ran(world_of, "random"))
    assert (kept.moved, kept.moves) == (0, 0)
    assert kept.again == spread.again == 200
    assert_share(spread.moves, spread.requests, 0.8)  # to one of the four others


@pytest.mark.parametrize("workers", [1, 3])
def test_a_backend_that_goes_moves_its_own_keys_there_and_back(workers: int) -> None:
    """Each key is asked for often enough to be seen both times."""
    down = Server("down", Constant(0.01), crashes=(Crash(5.0, 5.0),))
    world_of = scenario(
        down,
        *servers(9, Constant(0.01)),
        rate=1000.0,
        keys=Keys(count=300),
        probes=Probes(0.5, 0.2, 1, 1),
        workers=workers,
    )
    found = moved(ran(world_of, "rendezvous"))
    assert_share(found.moved, 300, 0.1)
    assert found.moves == 2 * found.moved


def test_a_bound_moves_requests_of_a_hot_key() -> None:
    keys = Keys(names=("hot", "a", "b", "c"), shares=(20.0, 1.0, 1.0, 1.0))
    world_of = scenario(*servers(4, Constant(0.1), slots=4), rate=100.0, keys=keys)
    free, bounded = ran(world_of, "ring_hash"), ran(world_of, "ring_hash", bounded_load=1.25)
    assert moved(free).moves == 0 < moved(bounded).moves
    assert result_of(bounded).latency["p99"] < 0.1 * result_of(free).latency["p99"]


def test_without_keys_there_is_nothing_to_move() -> None:
    assert result_of(ran(scenario(), "ring_hash")).keys is None


def test_a_policy_that_asks_for_no_key_finds_none() -> None:
    world = World(scenario(keys=Keys(count=1)), Contestant("random", policy_class("random")))
    assert world._request is not None
    request = world._request()
    assert request is not None
    assert (request.key, request.target) == (b"", b"/key-0")
