"""The contract suite finds what is wrong with a policy, and where."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from lb.balance import Balancer
from lb.core.backend import Backend
from lb.core.failure import Failure
from lb.core.message import Request
from lb.simulate.contract import CHECKS, maker, verdicts


class ByTheList(Balancer):
    """Keeps the contract, and none of what is not binding."""

    weighted = False

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        return backends[0]


class Remembers(ByTheList):
    """Goes on with backends that were there once."""

    first: Backend | None = None

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        self.first = self.first or backends[0]
        return self.first


class OwnChance(ByTheList):
    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        return random.choice(backends)


class KeepsInTheClass(ByTheList):
    count = 0

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        type(self).count += 1
        return backends[type(self).count % 7 % len(backends)]


class Meddles(ByTheList):
    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        backends[0].weight += 1
        return backends[0]


class FailsAtTheEnd(ByTheList):
    def on_end(self, backend: Backend, started: float, failure: Failure | None) -> None:
        if failure is not None:
            raise ValueError("nobody thought of that")


class SaysNothing(ByTheList):
    reason = ""


class ForgetsKeys(ByTheList):
    """Says that it goes by keys, and doesn't."""

    def __init__(self, clock: Any, rng: random.Random) -> None:
        super().__init__(clock, rng)
        self.key_of = lambda request, client: b""

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        return backends[int(self.rng.random() * len(backends))]


def found(policy: type[Balancer]) -> dict[str, str]:
    """What is wrong with it, by check."""
    return {
        each.check.run.__name__: each.found
        for each in verdicts(maker(policy, {}), policy.weighted)
        if each.found
    }


def test_who_only_takes_the_first_keeps_the_contract() -> None:
    assert found(ByTheList) == {
        "every_backend_is_reached": "49 of 50 idle backends got none of 1,250 requests"
    }


@pytest.mark.parametrize(
    ("policy", "check", "words"),
    [
        (Remembers, "tried_ones_are_left_out", "which is not eligible"),
        (Remembers, "whatever_happens", "which is not eligible"),
        (OwnChance, "same_seed_same_picks", "differs: chance has to come from `rng`"),
        (KeepsInTheClass, "same_seed_same_picks", "state from `self`"),
        (Meddles, "it_changes_no_backend", "only the pool writes these"),
        (FailsAtTheEnd, "whatever_happens", "it raised ValueError: nobody thought of that in on_end ("),
        (SaysNothing, "it_says_why", "its reason must be a text, not ''"),
        (ForgetsKeys, "a_key_stays_where_it_is", "a key changed its backend"),
    ],
)
def test_what_breaks_it_is_found(policy: type[Balancer], check: str, words: str) -> None:
    assert words in found(policy)[check]


def test_a_class_that_cannot_be_made_breaks_every_check() -> None:
    class Needs(ByTheList):
        def __init__(self, clock: Any, rng: random.Random, wanted: int) -> None:
            super().__init__(clock, rng)

    broken = found(Needs)
    assert len(broken) == sum(not check.by_weight for check in CHECKS)
    assert all("missing 1 required positional argument" in words for words in broken.values())
