"""Who takes part in a run: a policy, with its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from random import Random
from typing import Any

from lb.balance import Balancer
from lb.core.clock import Clock


class CannotRun(Exception):
    """A policy can't be made."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A policy with its options, and what it is called in the table."""

    label: str
    policy: type[Balancer]
    options: Mapping[str, Any] = field(default_factory=dict)

    def made(self, clock: Clock, rng: Random, number: int, workers: int) -> Balancer:
        """The policy of one of so many workers. Raises CannotRun."""
        try:
            return self.policy(clock, rng, **self._placed(number, workers))
        except Exception as error:
            raise CannotRun(f"{self.label} can't be made: {type(error).__name__}: {error}") from error

    def _placed(self, number: int, workers: int) -> Mapping[str, Any]:
        """The options for this worker. A policy that takes a part of the fleet, as `aperture` does, is told
        which balancer it is in, and of how many, where nobody has said."""
        options, known = self.options, signature(self.policy.__init__).parameters
        if "peer" in known and "peers" in known and not {"peer", "peers"} & set(options):
            return {**options, "peer": number, "peers": workers}
        return options
