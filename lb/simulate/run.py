"""Runs policies one after the other in the same world, and says what came of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lb.simulate.contestant import Contestant
from lb.simulate.scenario import Scenario
from lb.simulate.world import Watcher, World

NOBODY: Mapping[str, Watcher] = {}


@dataclass(frozen=True, slots=True)
class Shared:
    """What a backend had of the traffic."""

    id: str
    weight: int
    attempts: int


@dataclass(frozen=True, slots=True)
class KeysMoved:
    """How well keys stayed where they were.

    `again` is how many came more than once, `moved` how many of these changed their backend. `requests` are
    those of a key that had come before, `moves` how many of these went to another backend than that one."""

    again: int
    moved: int
    requests: int
    moves: int


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a policy. Latencies in seconds, of the requests that went well; 0 without any."""

    policy: str
    requests: int
    failed: int
    failures: dict[str, int]
    latency: dict[str, float]
    fairness: float
    retries: int
    ejections: int
    policy_errors: int
    keys: KeysMoved | None = None
    backends: tuple[Shared, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def simulate(
    scenario: Scenario,
    contestants: Iterable[Contestant],
    seed: int = 1,
    told: Callable[[str, float], object] = lambda label, share: None,
    watchers: Mapping[str, Watcher] = NOBODY,
) -> Iterator[Result]:
    """One result after the other. `told` hears which policy is at work and how far it is, from 0 to 1.
    `watchers` look at the worlds of the policies of these labels.

    All of them get the same requests at the same times, as long as these don't depend on the answers.
    """
    for contestant in contestants:
        world = World(scenario, contestant, seed)
        label = contestant.label
        world.run(lambda share, label=label: told(label, share), watchers.get(label))  # type: ignore[misc]
        yield result_of(world)


def result_of(world: World) -> Result:
    """What came of a world that has run."""
    latencies = world.latencies
    failed = sum(world.failures.values())
    backends = [backend for pool in world.pools for backend in pool.backends.values()]
    owners = world.owners
    return Result(
        world.contestant.label,
        latencies.size + failed,
        failed,
        dict(sorted(world.failures.items())),
        latencies.summary(),
        fairness(world),
        sum(backend.retries for backend in backends),
        sum(backend.ejections for backend in backends),
        sum(pool.policy_errors for pool in world.pools),
        None if owners is None else KeysMoved(owners.keys, owners.moved, owners.requests, owners.moves),
        tuple(Shared(each.id, each.server.weight, each.taken) for each in world.machines),
    )


def fairness(world: World) -> float:
    """How evenly attempts were spread, for weight and time in the pool: 1 is evenly, 1/n is all to one of n.

    Jain's index (Jain, Chiu and Hawe, 1984).
    """
    rates = [
        machine.taken / (machine.server.weight * world.present(machine))
        for machine in world.machines
        if machine.server.weight and world.present(machine)
    ]
    squares = sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else 1.0
