"""A circle on which backends lie in an order of their own, and the part of it that is one balancer's.

From Finagle's deterministic aperture (Twitter, 2019): all balancers have the same circle, on which each
backend has an arc as long as its weight. It is cut into as many slices as there are balancers. The window of
each one begins at its slice and is so many slices wide that it has enough backends. So each place on the
circle lies in the same number of windows, and the backends get the same for their weight, whatever the
numbers are. One that lies half in a window gets half as much from there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from math import ceil

from lb.core.backend import Backend

SIZE = 1000
"""So many places at least are kept."""

FINE = 1000
"""Parts of a weight are counted in so many; they are whole numbers."""


def peer_of(peer: int, peers: int) -> int:
    """This one. Raises ValueError where there can't be such a one."""
    if not 0 <= peer < peers:
        raise ValueError(f"peer must be from 0 to {peers - 1}, since there are {peers} peers, not {peer}")
    return peer


def window(
    backends: Sequence[Backend], peer: int, peers: int, size: int, places: dict[str, bytes] | None = None
) -> dict[Backend, int]:
    """The backends in the window of the `peer`th of `peers`, and the parts of their weights that lie in it.

    It is so wide that it has the weight of `size` average backends at least. `places` keeps what is known of
    where each lies, for the next time.
    """
    ordered = _in_order(backends, {} if places is None else places)
    ends = list(accumulate([backend.weight for backend in ordered]))
    if not ordered:
        return {}
    total = ends[-1]
    start = peer * total / peers
    end = start + min(peers, ceil(size * peers / len(ordered))) * total / peers
    number = bisect_right(ends, start)
    at = ends[number] - ordered[number].weight
    found: dict[Backend, float] = {}
    while at < end:
        backend = ordered[number % len(ordered)]  # it may wrap
        inside = min(end, at + backend.weight) - max(start, at)
        found[backend] = found.get(backend, 0.0) + inside
        at += backend.weight
        number += 1
    return {each: round(inside * FINE) for each, inside in found.items() if inside * FINE >= 1}


def _in_order(backends: Sequence[Backend], places: dict[str, bytes]) -> list[Backend]:
    """The same in all balancers, and nothing to do with how sources list them."""
    if len(places) > 2 * len(backends) + SIZE:
        places.clear()  # mostly of those that have left
    for backend in backends:
        if backend.id not in places:
            name = backend.id.encode()
            places[backend.id] = blake2b(name, digest_size=8).digest() + name
    return sorted(backends, key=lambda backend: places[backend.id])
