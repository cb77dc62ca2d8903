"""Counting what a pick looks at: a cost that no busy machine can blur."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from lb.core.backend import Backend, BackendSpec
from lb.core.pool import Pool


class Looks:
    """How often anything was looked at."""

    count = 0


class WatchedBackend(Backend):
    """Counts every look at one of its attributes."""

    __slots__ = ("looks",)

    def __init__(self, spec: BackendSpec, looks: Looks) -> None:
        object.__setattr__(self, "looks", looks)
        super().__init__(spec)

    def __getattribute__(self, name: str) -> Any:
        object.__getattribute__(self, "looks").count += 1
        return object.__getattribute__(self, name)


class WatchedSequence(Sequence[Backend]):
    """Counts every backend that is taken out of it."""

    def __init__(self, backends: Sequence[Backend], looks: Looks) -> None:
        self._backends = backends
        self._looks = looks

    @overload
    def __getitem__(self, index: int) -> Backend: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Backend]: ...
    def __getitem__(self, index: int | slice) -> Backend | Sequence[Backend]:
        found = self._backends[index]
        self._looks.count += 1 if isinstance(found, Backend) else len(found)
        return found

    def __len__(self) -> int:
        return len(self._backends)

    def __iter__(self) -> Iterator[Backend]:
        for backend in self._backends:
            self._looks.count += 1
            yield backend


def watch(pool: Pool, backends: Sequence[BackendSpec]) -> Looks:
    """Fills a pool with watched backends, in a watched set."""
    looks = Looks()
    pool.backends = {spec.id: WatchedBackend(spec, looks) for spec in backends}
    pool.refresh()
    pool.eligible = WatchedSequence(pool.eligible, looks)  # type: ignore[assignment]
    pool.policy.rebuild(pool.eligible)
    looks.count = 0
    return looks
