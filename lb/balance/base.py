"""What a balancing policy is. Deriving from `Balancer` in a file of this folder registers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, ClassVar, TypeVar

from lb.core.affinity import KeyReader
from lb.core.backend import Backend
from lb.core.clock import Clock
from lb.core.failure import Failure
from lb.core.message import Request
from lb.core.seen import Score, with_this_one

__all__ = ["Balancer", "above", "at_least", "with_this_one"]

_registered: dict[str, type[Balancer]] = {}
_Hook = TypeVar("_Hook", bound=Callable[..., None])


def _does_nothing(hook: _Hook) -> _Hook:
    """Marks a hook of the base class, so that the pool need not call it."""
    hook.does_nothing = True  # type: ignore[attr-defined]
    return hook


def at_least(least: float) -> Callable[[Any], None]:
    """A check of an option."""

    def check(value: float) -> None:
        if value < least:
            raise ValueError(f"must be at least {least}, not {value}")

    return check


def above(limit: float) -> Callable[[Any], None]:
    """A check of an option."""

    def check(value: float) -> None:
        if value <= limit:
            raise ValueError(f"must be more than {limit}, not {value}")

    return check


class Balancer:
    """Picks one backend of the eligible ones. Pure: no I/O, no wall clock, no module state.

    A policy overrides `pick`, and the hooks that it needs. Its options are the keyword arguments of its
    `__init__`. It never sees a backend that is unhealthy, drained or already tried: the pool did that.

    `reason` says in a few words why the last pick was made. `looked` are the backends that it compared,
    where that isn't all of them, and `scores` their scores in the same order, where it goes by anything but
    requests in flight. One that goes by these and weights alone names the formula instead, as `score_of`: it
    costs nothing per pick. All are for `lb explain`.

    One that doesn't go by `backend.weight` says `weighted = False`: then the pool sees to it that backends
    which are to get less than others, being new or of a higher tier, do so.

    One that sends requests of the same key to the same backend sets `key_of`, in `__init__`; then it finds
    the key in `request.key`.

    `checks` are for options of which not every value will do: by the option's name what raises ValueError.
    """

    name: ClassVar[str] = ""
    weighted: ClassVar[bool] = True
    reason: str = "the policy's choice"
    looked: Sequence[Backend] = ()
    scores: Sequence[float] = ()
    score_of: Score | None = None
    key_of: KeyReader | None = None
    checks: ClassVar[Mapping[str, Callable[[Any], object]]] = {}

    def __init_subclass__(cls, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = name
        if name:
            _registered[name] = cls

    def __init__(self, clock: Clock, rng: Random) -> None:
        self.clock = clock
        self.rng = rng

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        """One of at least two backends, all eligible: the set of the last `rebuild`, or a part of it."""
        raise NotImplementedError

    @_does_nothing
    def rebuild(self, backends: Sequence[Backend]) -> None:
        """The set of eligible backends, or a weight among them, has changed."""

    @_does_nothing
    def on_start(self, backend: Backend) -> None:
        """An attempt has been given to this backend."""

    @_does_nothing
    def on_end(self, backend: Backend, started: float, failure: Failure | None) -> None:
        """It has ended: with its last byte, or with this failure. `started` is in the clock's seconds."""
