"""The results as a table for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lb.simulate.latencies import QUANTILES
from lb.simulate.run import Result
from lb.simulate.scenario import Clients, Scenario

LATENCIES = (*QUANTILES, "max")


def as_json(scenario: Scenario, seed: int, results: Sequence[Result]) -> dict[str, Any]:
    return {
        "scenario": scenario.name,
        "seed": seed,
        "duration": scenario.duration,
        "warm_up": scenario.warm_up,
        "workers": scenario.workers,
        "shared": scenario.shared,
        "policies": [result.as_json() for result in results],
    }


def as_table(scenario: Scenario, seed: int, results: Sequence[Result]) -> RenderableType:
    """A row for each policy. The best of a column is bold, where they differ."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("policy", overflow="fold")  # in 80 columns, the longest names take two lines
    keyed = any(result.keys is not None for result in results)
    for name in (*LATENCIES, "failed", "fairness", *(("keys\nmoved",) if keyed else ())):
        table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    best = {name: min(result.latency[name] for result in results) for name in LATENCIES}
    fewest, fairest = min(map(_failed, results)), max(result.fairness for result in results)
    least_moved = min((moved(result) for result in results if result.keys is not None), default=0.0)
    for result in results:
        cells = [
            _cell(seconds(result.latency[name]), result.latency[name] == best[name]) for name in LATENCIES
        ]
        cells.append(_cell(share(_failed(result)), _failed(result) == fewest))
        cells.append(_cell(f"{result.fairness:.3f}", result.fairness == fairest))
        if keyed:
            text = "" if result.keys is None else share(moved(result))
            cells.append(_cell(text, moved(result) == least_moved))
        table.add_row(result.policy, *cells)
    return Group(Text(_heading(scenario, seed)), Text(), table, *_remarks(results))


def _heading(scenario: Scenario, seed: int) -> str:
    about = f": {scenario.about}" if scenario.about else ""
    counted = scenario.duration - scenario.warm_up
    arrivals = scenario.arrivals
    who = (
        f"{arrivals.count} clients"
        if isinstance(arrivals, Clients)
        else f"{arrivals.rate:.4g} requests/s"
        if arrivals.rate < 9999.5
        else f"{arrivals.rate:.0f} requests/s"
    )
    worker = ""
    if scenario.workers > 1:
        worker = f", {scenario.workers} {'sharing' if scenario.shared else 'blind'} workers"
    return (
        f"{scenario.name}{about}\n{who}, {len(scenario.servers)} backends{worker}, {counted:g} s, seed {seed}"
    )


def _remarks(results: Sequence[Result]) -> list[Text]:
    remarks = []
    for result in results:
        found = [f"{name} {count}" for name, count in result.failures.items()]
        found += [f"retries {result.retries}"] if result.retries else []
        found += [f"ejections {result.ejections}"] if result.ejections else []
        found += [f"errors of the policy {result.policy_errors}"] if result.policy_errors else []
        if found:
            remarks.append(Text(f"{result.policy}: {', '.join(found)}"))
    return remarks


def _cell(text: str, best: bool) -> Text:
    return Text(text, style="bold" if best else "")


def _failed(result: Result) -> float:
    return result.failed / result.requests if result.requests else 0.0


def moved(result: Result) -> float:
    """The share of the keys that came more than once which changed their backend."""
    keys = result.keys
    return keys.moved / keys.again if keys is not None and keys.again else 0.0


def seconds(value: float) -> str:
    """Three digits that count, in ms up to a second."""
    if value >= 99.95:
        return f"{value:.0f}s"
    if value >= 0.9995:
        return f"{value:.1f}s" if value >= 9.995 else f"{value:.2f}s"
    millis = value * 1000
    return f"{millis:.0f}ms" if millis >= 99.95 else f"{millis:.3g}ms"


def share(value: float) -> str:
    return "0" if not value else f"{value:.2%}" if value >= 0.0001 else "<0.01%"
