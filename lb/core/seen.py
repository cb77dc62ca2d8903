"""What a pool looked like when it was picked from: what `lb explain` makes its words of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from lb.core.backend import Backend

REMEMBERED: Final = 8
"""A request record names at most so many candidates: all of a small pool, else those the policy drew."""


Score = Callable[[int, float], float]
"""What a policy compares that goes by requests in flight and weight alone: worked out when it's asked for."""


def per_weight(in_flight: int, weight: float) -> float:
    """Requests in flight for the weight."""
    return in_flight / weight


def with_this_one(in_flight: int, weight: float) -> float:
    """The same, the one to come included."""
    return (in_flight + 1) / weight


class PoolView(NamedTuple):
    """A pool at a time. Made when the pool changes, shared by all records."""

    policy: str
    candidates: tuple[Backend, ...]  # all eligible ones; empty where there are too many to remember
    weights: tuple[int, ...]  # theirs
    candidates_total: int
    excluded: tuple[tuple[str, str], ...]  # (ID, reason) of who was no candidate, the first few
    excluded_total: int
    panic: str = ""  # why all active ones are candidates, where they are
    shadow: str = ""  # the policy that is only tried, where there is one
    score: Score | None = None  # of the candidates, where the policy goes by nothing else
    effective: tuple[float, ...] = ()  # the weights of `candidates` that it went by: less while one is new


Seen = tuple[PoolView, tuple[int, ...], Sequence[Backend], str, Sequence[float], Backend | None]
"""What was seen at a pick: the pool; the requests in flight of `candidates`, or where these are empty of
those drawn; the backends that the policy drew, where it drew any; its reason; the scores of those drawn,
where it goes by more than requests in flight; and whom the shadow policy would have taken."""


def view_of(
    policy: str,
    candidates: tuple[Backend, ...],
    excluded: Sequence[tuple[str, str]],
    panic: str = "",
    shadow: str = "",
    score: Score | None = None,
    scale: int = 1,
) -> PoolView:
    """The view of a pool with these candidates, whose weights are so many times as large as configured."""
    remembered = candidates if len(candidates) <= REMEMBERED else ()
    return PoolView(
        policy,
        remembered,
        tuple([backend.configured_weight for backend in remembered]),
        len(candidates),
        tuple(excluded[:REMEMBERED]),
        len(excluded),
        panic,
        shadow,
        score,
        tuple([backend.weight / scale for backend in remembered]) if score is not None else (),
    )
