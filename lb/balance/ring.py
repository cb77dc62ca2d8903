"""A circle on which backends lie in an order of their own, and the part of it that is one balancer's.

From Finagle's deterministic aperture (Twitter, 2019): all balancers have the same circle, on which each
backend has an arc as long as its weight. It is cut into as many slices as there are balancers. The window of
each one begins at its slice and is so many slices wide that it has enough backends. So each place on the
circle lies in the same number of windows, and the backends get the same for their weight, whatever the
numbers are. One that lies half in a window gets half as much from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import ceil

from lb.core.backend import Backend

FINE = 1000
"""Parts of a weight are counted in so many; they are whole numbers."""


def peer_of(peer: int, peers: int) -> int:
    """This one. Raises ValueError where there can't be such a one."""
    if not 0 <= peer < peers:
        raise ValueError(f"peer must be from 0 to {peers - 1}, since there are {peers} peers, not {peer}")
    return peer


def window(backends: Sequence[Backend], peer: int, peers: int, size: int) -> dict[Backend, int]:
    """The backends in the window of the `peer`th of `peers`, and the parts of their weights that lie in it.

    It is so wide that it has the weight of `size` average backends at least.
    """
    total = sum([backend.weight for backend in backends])
    slices = min(peers, ceil(size * peers / max(1, len(backends))))
    start = peer * total / peers
    end = start + slices * total / peers
    found: dict[Backend, int] = {}
    place = 0.0
    for backend in sorted(backends, key=_order):
        arc = backend.weight
        inside = sum(
            [max(0.0, min(end, at + arc) - max(start, at)) for at in (place, place + total)]  # it may wrap
        )
        if inside * FINE >= 1:
            found[backend] = round(inside * FINE)
        place += arc
    return found


def _order(backend: Backend) -> tuple[bytes, str]:
    """The same in all balancers, and nothing to do with how sources list them."""
    return blake2b(backend.id.encode(), digest_size=8).digest(), backend.id
