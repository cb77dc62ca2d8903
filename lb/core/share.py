"""Who of a pool serves, and who gets only a share of what its weight says: newcomers and higher tiers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from lb.core.backend import Backend, BackendSpec
from lb.core.clock import Clock, Timer
from lb.core.rules import PoolRules
from lb.core.zones import near_first

FIRST = 0.1
"""With what part of its weight a backend begins."""

SPARE = 1.4
"""A tier takes all of the traffic while this many times its healthy part is at least all of it: with 72 %
of its backends well, as Envoy has it (its overprovisioning factor)."""


FINE = 1000
"""Where backends get only shares of their weights, all weights of the pool are so many times as large: they
are whole numbers, and a tenth of 1 is none. They stay so, since policies keep debts in units of weight."""


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


class Sharing:
    """Who of a pool serves, by tiers, zones and panic, and with which share of its weight.

    Newcomers get a share as well: see `SlowStart`. `scale` is by how much all weights are multiplied.
    """

    def __init__(self, slow_start: SlowStart) -> None:
        self.scale = 1
        self._slow_start = slow_start
        self._tiered = False
        self._zoned = False

    def learn(self, specs: Sequence[BackendSpec]) -> None:
        """These are the backends of the pool from now on."""
        self._tiered = self._zoned = False
        for spec in specs:
            if spec.tier:
                self._tiered = True
            if spec.zone:
                self._zoned = True

    def matters(self, rules: PoolRules) -> bool:
        """Whether not simply all that are well serve, so that `chosen` has to be asked."""
        return self._tiered or self._zoned or rules.panic_threshold > 0.0

    def chosen(
        self, backends: Sequence[Backend], well: list[Backend], rules: PoolRules, weighted: bool, pool: object
    ) -> tuple[list[Backend], str]:
        """Who of those that are well serves, each a candidate of the pool with its share; or all that are
        active, and why. `weighted` says whether the policy goes by weights."""
        loads, panic = dict[int, float](), ""
        chosen = well
        if self._tiered or rules.panic_threshold:
            chosen, loads, panic = serving(backends, well, rules.panic_threshold)
        groups = [backend.spec.tier if loads else 0 for backend in chosen]
        if self._zoned and rules.zones is not None and not panic:
            active = [backend for backend in backends if backend.active]
            chosen, groups, loads = near_first(active, chosen, loads, rules.zones)
        for backend in backends:
            backend.candidate_of = None
        for backend in chosen:
            backend.candidate_of = pool
        if (loads or self._slow_start.any) and not panic:
            parts = [self._slow_start.part(backend) for backend in chosen]
            self._give(backends, chosen, shares(chosen, parts, groups, loads, weighted), weighted)
        return chosen, panic

    def _give(
        self, backends: Sequence[Backend], chosen: Sequence[Backend], found: Sequence[float], weighted: bool
    ) -> None:
        """Less of the weight, or a share to draw where the policy knows no weights."""
        if min(found, default=1.0) < 1.0:
            self.scale = FINE
        for backend in backends:
            backend.weight = backend.configured_weight * self.scale
        for backend, share in zip(chosen, found, strict=True):
            backend.share = share
            if share < 1.0 and weighted:
                backend.weight = max(1, round(backend.weight * share))


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
