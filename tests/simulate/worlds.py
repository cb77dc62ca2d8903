"""Small worlds for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from lb.balance import Balancer, policy_class
from lb.core.backend import Backend
from lb.core.clock import Clock
from lb.core.message import Request
from lb.simulate.contestant import Contestant
from lb.simulate.latency import Constant, Latency
from lb.simulate.scenario import Poisson, Scenario, Server
from lb.simulate.world import World


class BestOf(Balancer):
    """The least busy of so many that are drawn at random, all different."""

    def __init__(self, clock: Clock, rng: Random, choices: int) -> None:
        super().__init__(clock, rng)
        self.choices = choices

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        return min(self.rng.sample(backends, self.choices), key=lambda each: each.in_flight)


def named(policy: str) -> Contestant:
    return Contestant(policy, policy_class(policy))


def servers(count: int, latency: Latency, **options: object) -> tuple[Server, ...]:
    return tuple(Server(f"b{number}", latency, **options) for number in range(count))  # type: ignore[arg-type]


def scenario(*machines: Server, rate: float = 100.0, duration: float = 20.0, **options: object) -> Scenario:
    machines = machines or servers(3, Constant(0.02))
    return Scenario("test", Poisson(rate), machines, duration, **options)  # type: ignore[arg-type]


def ran(world_of: Scenario, policy: str = "p2c", seed: int = 1) -> World:
    world = World(world_of, named(policy), seed)
    world.run()
    return world
