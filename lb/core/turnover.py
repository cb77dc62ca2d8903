"""What is different in a set of backends from the one before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from lb.core.backend import Backend, BackendSpec


class Turnover(NamedTuple):
    """Who has come to a pool, who has left it, and of whom it is told something else, by their IDs.

    Whoever is at another address than before has left and come.
    """

    joined: Sequence[str] = ()
    left: Sequence[str] = ()
    changed: Sequence[str] = ()


NONE = Turnover()


class Difference(NamedTuple):
    """The same, as the pool needs it: `renewed` are those who stay, but with another spec. That may well be
    equal to the one before."""

    joined: list[BackendSpec]
    left: list[Backend]
    renewed: list[tuple[Backend, BackendSpec]]


def difference(before: dict[str, Backend], specs: Sequence[BackendSpec]) -> Difference:
    """Of thousands of backends all but a few have the very same spec as before, which is the quickest to see.

    Raises ValueError where an ID comes twice.
    """
    names = {spec.id for spec in specs}
    if len(names) < len(specs):
        ((twice, _),) = Counter([spec.id for spec in specs]).most_common(1)
        raise ValueError(f"two backends have the same ID: {twice}")
    joined: list[BackendSpec] = []
    left: list[Backend] = []
    renewed: list[tuple[Backend, BackendSpec]] = []
    stay = 0
    for spec in specs:
        known = before.get(spec.id)
        if known is None:
            joined.append(spec)
            continue
        stay += 1
        old = known.spec
        if old is spec:
            continue
        if old.is_at(spec):
            renewed.append((known, spec))
        else:
            left.append(known)
            joined.append(spec)
    if stay < len(before):
        left += [backend for name, backend in before.items() if name not in names]
    return Difference(joined, left, renewed)
