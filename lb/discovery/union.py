"""One set of several: what the configuration and each of the sources name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from lb.core.backend import BackendSpec
from lb.core.source import STATIC

Named = Sequence[tuple[str, Sequence[BackendSpec]]]
"""Pairs of a source's name and its set."""


def union(
    static: Sequence[BackendSpec], named: Iterable[tuple[str, Sequence[BackendSpec]]]
) -> list[BackendSpec]:
    """One set of several, once."""
    return Union().of(static, list(named))


class Union:
    """One set of several, from one change to the next. `origins` says who has named each, by ID.

    Of two with the same ID, or the same address, the first one holds: the configuration's own come before
    those of the sources, and these are in the order of the configuration.

    Sets of thousands of which a few have changed are told apart by identity: sources name who stays by the
    very same spec. Only where somebody is named twice all of them are looked at.
    """

    def __init__(self) -> None:
        self.origins: dict[str, str] = {}
        self._addresses: set[str] = set()
        self._sets: list[_Set] = []
        self._twice = False  # whether anybody is named twice

    def of(self, static: Sequence[BackendSpec], named: Named) -> list[BackendSpec]:
        """The union of these."""
        before = self._sets
        sets = self._sets = [_Set(STATIC, static), *(_Set(name, specs) for name, specs in named)]
        if self._twice or [each.name for each in sets] != [each.name for each in before]:
            return self._anew(sets)
        if any(each.repeats for each in sets):
            return self._anew(sets)
        for old, new in zip(before, sets, strict=True):
            for spec in new.lacks(old):
                del self.origins[spec.id]
                self._addresses.remove(spec.address)
        for old, new in zip(before, sets, strict=True):
            if not all(self._takes(new.name, spec) for spec in old.lacks(new)):
                return self._anew(sets)
        return list(chain.from_iterable([each.specs for each in sets]))

    def _anew(self, sets: Sequence[_Set]) -> list[BackendSpec]:
        self.origins, self._addresses = {}, set()
        found = [spec for each in sets for spec in each.specs if self._takes(each.name, spec)]
        self._twice = len(found) < sum([len(each.specs) for each in sets])
        return found

    def _takes(self, name: str, spec: BackendSpec) -> bool:
        """Whether this one is in it, being the first of its ID and at its address."""
        address = spec.address
        if spec.id in self.origins or address in self._addresses:
            return False
        self.origins[spec.id] = name
        self._addresses.add(address)
        return True


class _Set:
    """A source's set."""

    def __init__(self, name: str, specs: Sequence[BackendSpec]) -> None:
        self.name = name
        self.specs = specs
        self._by_identity = dict(zip(map(id, specs), specs, strict=True))

    @property
    def repeats(self) -> bool:
        """Whether it holds the very same spec twice."""
        return len(self._by_identity) < len(self.specs)

    def lacks(self, other: _Set) -> list[BackendSpec]:
        """Those of the other one that aren't in this one, in their order."""
        if self.specs is other.specs:
            return []
        mine = self._by_identity
        return [other._by_identity[each] for each in other._by_identity if each not in mine]
