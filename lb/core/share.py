"""Who of a pool serves, and who gets only a share of what its weight says: newcomers and higher tiers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from lb.core.backend import Backend
from lb.core.clock import Clock, Timer

FIRST = 0.1
"""With what part of its weight a backend begins."""

SPARE = 1.4
"""A tier takes all of the traffic while this many times its healthy part is at least all of it: with 72 %
of its backends well, as Envoy has it (its overprovisioning factor)."""


class SlowStart:
    """Backends that have just come and get more from step to step, until they get all. Times in seconds.

    A step is a fiftieth of the way, but no less than a second; `on_step` is called after each.
    """

    def __init__(self, seconds: float, clock: Clock, on_step: Callable[[], None]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._on_step = on_step
        self._since: dict[Backend, float] = {}
        self._timer: Timer | None = None

    def begin(self, backend: Backend) -> None:
        """It is new, or back. From the start if it was on its way already."""
        if self.seconds:
            self._since[backend] = self._clock.time()
            if self._timer is None:
                self._step_later()

    def end(self, backend: Backend) -> None:
        """It is gone."""
        self._since.pop(backend, None)

    def configure(self, seconds: float) -> None:
        self.seconds = seconds
        if not seconds:
            self.close()

    def close(self) -> None:
        """Everyone gets all."""
        self._since.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def any(self) -> bool:
        return bool(self._since)

    def part(self, backend: Backend) -> float:
        """How far a backend is, from `FIRST` to 1."""
        since = self._since.get(backend)
        if since is None:
            return 1.0
        return min(1.0, FIRST + (1.0 - FIRST) * (self._clock.time() - since) / self.seconds)

    def _step_later(self) -> None:
        self._timer = self._clock.call_later(max(1.0, self.seconds / 50), self._step)

    def _step(self) -> None:
        for backend in [each for each in self._since if self.part(each) >= 1.0]:
            del self._since[backend]
        self._timer = None
        if self._since:
            self._step_later()
        self._on_step()


def serving(
    backends: Iterable[Backend], well: list[Backend], panic_threshold: float
) -> tuple[list[Backend], dict[int, float], str]:
    """Who of those that are well serves, and the load of each tier (none: there is but one).

    Where less than a share of `panic_threshold` is well, all that are meant to serve do, and the third says
    why. Several tiers may take it all while most backends of one are ill; then there is no need for panic.
    """
    active = [backend for backend in backends if backend.active]
    health = tier_health(active, well)
    share = len(well) / len(active) if active else 1.0
    if share < panic_threshold and (len(health) == 1 or sum(health.values()) < 1.0):
        return active, {}, f"only {len(well)} of {len(active)} can be used, less than {panic_threshold:.0%}"
    if len(health) < 2:
        return well, {}, ""
    loads = tier_loads(health)
    for backend in well:
        backend.standby = "" if backend.spec.tier in loads else "standby"
    return [backend for backend in well if not backend.standby], loads, ""


def tier_health(active: Iterable[Backend], well: Iterable[Backend]) -> dict[int, float]:
    """How much of all traffic each tier could take, from 0 to 1, the lowest tier first."""
    size = Counter([backend.spec.tier for backend in active])
    fit = Counter([backend.spec.tier for backend in well])
    return {tier: min(1.0, SPARE * fit[tier] / size[tier]) for tier in sorted(size)}


def tier_loads(health: Mapping[int, float]) -> dict[int, float]:
    """What part of the traffic each tier gets: the lowest all that it can take, the next one what is left.

    Where all of them together can't take it all, each gets more in proportion. Empty where none is well.
    """
    together = min(1.0, sum(health.values()))
    loads, left = dict[int, float](), 1.0
    for tier, part in health.items():
        load = min(left, part / together) if together else 0.0
        if load > 1e-9:
            loads[tier] = load
            left -= load
    return loads


def shares(
    backends: Sequence[Backend],
    parts: Sequence[float],
    groups: Sequence[int],
    loads: Mapping[int, float],
    weighted: bool,
) -> list[float]:
    """Of what each backend's weight says, the share that it gets: 1 for those that get the most.

    `parts` are how far they are in their slow start, `groups` what each belongs to (a tier, a zone of one),
    and `loads` those of the groups (none: there is but one). If all are starting slowly, those that are
    furthest get all of their weight. `weighted` says whether the policy goes by weights, or gives the same
    to all.
    """
    sums: dict[int, float] = {}
    for backend, part, group in zip(backends, parts, groups, strict=True):
        weight = backend.configured_weight if weighted else 1
        sums[group] = sums.get(group, 0.0) + weight * part
    found = [part * loads.get(group, 1.0) / sums[group] for part, group in zip(parts, groups, strict=True)]
    most = max(found, default=1.0)
    return [share / most for share in found]
