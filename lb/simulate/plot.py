"""The results as a picture: latencies by percentile and over time, and below the load of each backend.

matplotlib draws it, and is imported when it does: the extra `plot` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, log10, nan
from pathlib import Path
from typing import Any

from lb.simulate.latencies import Latencies
from lb.simulate.report import seconds
from lb.simulate.scenario import Scenario
from lb.simulate.world import World

SUFFIXES = (".svg", ".png")

SLICES = 100
"""Into so many slices the time is cut."""

LOOKS = 4
"""So often the load is looked at in each slice."""

TOGETHER = 2
"""So many slices have one p99, or few requests would make it jump."""

FINENESS = 25
"""Points of a curve between p90 and p99, and again between p99 and p99.9."""

PERCENTILES = [1 - 10 ** (-step / FINENESS) for step in range(1, 6 * FINENESS + 1)]
"""From p9 on, evenly spread on the axis, on which each step has a tenth of what is left before it."""

NINES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)

MOST_NAMED = 16
"""Backends that have their names at the axis."""

ACROSS = 3
"""Panels of load side by side."""

COLOURS = ("#1b6ca8", "#d1495b", "#2e933c", "#b8860b", "#7a4fa3", "#00868b", "#c0531f", "#6b6b6b", "#b0368c")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)))


class CannotPlot(Exception):
    """There is no matplotlib, or the file can't be written."""


class Seen:
    """What is seen of one run while it goes: a `Watcher`."""

    looks = SLICES * LOOKS

    def __init__(self) -> None:
        self.p99: list[float] = []  # of the requests that ended in a slice; nan where there were none
        self.load: list[list[float]] = []  # by slice and machine: requests there, on average
        self.percentiles: list[float] = []
        self._looks = 0
        self._sums: list[float] = []
        self._begun = 0

    def look(self, world: World) -> None:
        counts = dict.fromkeys((machine.id for machine in world.machines), 0)
        for pool in world.pools:
            for backend in pool.backends.values():
                counts[backend.id] += backend.own
        self._sums = [a + b for a, b in zip(self._sums or [0.0] * len(counts), counts.values(), strict=True)]
        self._looks += 1
        if self._looks % LOOKS == 0:
            self.load.append([total / LOOKS for total in self._sums])
            self._sums = []
        if self._looks % (LOOKS * TOGETHER) == 0:
            ended = Latencies()
            ended.extend(world.latencies[self._begun :])
            self.p99.append(ended.quantiles([0.99])[0] if ended else nan)
            self._begun = len(world.latencies)
            world.latencies.fold()
            self._begun = min(self._begun, len(world.latencies))

    def end(self, world: World) -> None:
        """The run is over."""
        count = world.latencies.size
        shares = [share for share in PERCENTILES if count * (1 - share) > 0.99]  # beyond, it is the maximum
        self.percentiles = world.latencies.quantiles(shares)


def checked(path: Path) -> None:
    """Raises CannotPlot where a picture can't come to be there."""
    if path.suffix.lower() not in SUFFIXES:
        raise CannotPlot(f"--plot takes a file that ends in {' or '.join(SUFFIXES)}, not {path}")
    if not path.absolute().parent.is_dir():
        raise CannotPlot(f"can't write {path}: there is no folder {path.parent}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise CannotPlot(f"--plot needs matplotlib ({error}): pip install 'lb[plot]'") from None


def draw(path: Path, scenario: Scenario, seed: int, seen: dict[str, Seen]) -> None:
    """Writes the picture. The same results give the same bytes. Raises CannotPlot."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#888888",
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "grid.color": "#dddddd",
        "svg.hashsalt": "lb",
        "svg.fonttype": "path",
    }
    with mpl.rc_context(style):
        across = min(ACROSS, len(seen))
        down = ceil(len(seen) / across)
        named = len(scenario.servers) <= MOST_NAMED
        height = max(1.6, 0.6 + 0.16 * len(scenario.servers)) if named else 2.4
        figure: Any = Figure(figsize=(11, 4.6 + down * (height + 0.5)), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
        above, below = figure.subfigures(2, 1, height_ratios=[4.2, down * (height + 0.5)])
        about = f": {scenario.about}" if scenario.about else ""
        figure.suptitle(_wrapped(f"{scenario.name}{about}  (seed {seed})"), x=0.01, ha="left", fontsize=11)
        _latencies(above.subplots(1, 2), scenario, seen)
        _loads(below, scenario, seen, across, down)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
        try:
            figure.savefig(path, dpi=130, metadata=metadata)
        except OSError as error:
            raise CannotPlot(f"can't write {path}: {error.strerror}") from None


def _latencies(axes: Sequence[Any], scenario: Scenario, seen: dict[str, Seen]) -> None:
    percentile, time = axes
    for number, (label, each) in enumerate(seen.items()):
        look: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
            "linewidth": 1.4,
            "label": label,
        }
        if any(each.percentiles):
            places = [_nines(share) for share in PERCENTILES[: len(each.percentiles)]]
            percentile.plot(places, each.percentiles, **look)
        time.plot(_centres(scenario), each.p99, **look)
    _by_percentile(percentile, max((len(each.percentiles) for each in seen.values()), default=1))
    _over_time(time, scenario)
    for axis in axes:
        axis.grid(True, linewidth=0.6)
        if any(any(each.percentiles) for each in seen.values()):
            _scale(axis)
        else:
            axis.annotate("no request went well", (0.5, 0.5), xycoords="axes fraction", ha="center")
    if percentile.lines:
        percentile.legend(loc="lower right", frameon=False, fontsize=8, ncols=1 + len(seen) // 8)


def _by_percentile(axis: Any, points: int) -> None:
    """The axis on which each step has a tenth of what is left, for a curve of so many points."""
    axis.set_title("Latency by percentile")
    last = _nines(PERCENTILES[max(0, points - 1)])
    ticks = [share for share in NINES if _nines(share) <= last]
    axis.set_xticks([_nines(share) for share in ticks], [f"p{share * 100:g}" for share in ticks])


def _over_time(axis: Any, scenario: Scenario) -> None:
    axis.set_title("p99 of the requests that ended at a time")
    axis.set_xlabel("seconds")
    axis.set_xlim(0, scenario.duration)
    if scenario.warm_up:
        axis.axvspan(0, scenario.warm_up, color="#f0f0f0", linewidth=0)
        axis.annotate(
            "warm-up",
            (scenario.warm_up / 2, 0.98),
            xycoords=("data", "axes fraction"),
            rotation=90,
            ha="center",
            va="top",
            fontsize=8,
            color="#888888",
        )


def _scale(axis: Any) -> None:
    """Latencies from bottom to top: logarithmic, unless that would have no place to name."""
    from matplotlib.ticker import FuncFormatter

    low, high = axis.get_ylim()
    if low <= 0 or high >= 3 * low:
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.yaxis.set_minor_formatter(FuncFormatter(_at_some("25" if high < 30 * low else "")))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, place: seconds(value)))


def _loads(figure: Any, scenario: Scenario, seen: dict[str, Seen], across: int, down: int) -> None:
    """A picture for each policy, of the same colours: a row for each backend, from left to right the time."""
    from matplotlib.colors import PowerNorm

    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    most = max((value for each in seen.values() for row in each.load for value in row), default=1.0)
    norm = PowerNorm(0.5, 0.0, max(most, 1.0))
    count = len(scenario.servers)
    image = None
    for panel, (label, each) in zip(panels.flat, seen.items(), strict=False):
        rows = [[row[place] for row in each.load] for place in range(count)]
        image = panel.imshow(
            rows,
            aspect="auto",
            interpolation="nearest",
            cmap="YlOrRd",
            norm=norm,
            extent=(0, scenario.duration, count - 0.5, -0.5),
        )
        panel.set_title(label)
        if count <= MOST_NAMED:
            panel.set_yticks(range(count), [_short(server.id) for server in scenario.servers], fontsize=7)
            for line in range(1, count):
                panel.axhline(line - 0.5, color="white", linewidth=0.8)
        else:
            panel.set_ylabel(f"{count} backends")
        panel.tick_params(length=2)
    for panel in list(panels.flat)[len(seen) :]:
        panel.set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel("seconds")
    if image is not None:
        bar = figure.colorbar(image, ax=panels, pad=0.01, aspect=30 if down > 1 else 15)
        bar.set_label("requests in flight")
        bar.outline.set_visible(False)


def _at_some(digits: str) -> Callable[[float, int], str]:
    """Names the places that begin with one of these digits."""
    return lambda value, place: seconds(value) if f"{value:e}"[0] in digits else ""


def _nines(share: float) -> float:
    """The place of a share on the axis."""
    return -log10(1 - share)


def _centres(scenario: Scenario) -> list[float]:
    count = SLICES // TOGETHER
    return [(number + 0.5) * scenario.duration / count for number in range(count)]


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:8]}…{name[-9:]}"


def _wrapped(text: str, width: int = 120) -> str:
    from textwrap import fill

    return fill(text, width)
