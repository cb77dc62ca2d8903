"""Rounds to ratios, the table, the JSON."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from .cases import CASES
from .measure import Run
from .peers import PEERS, REFERENCE


@dataclass(frozen=True)
class Summary:
    """One proxy in one case: medians over the rounds that aren't void."""

    peer: str
    case: str
    rounds: int
    cpu_microseconds: float
    requests_per_second: float
    p50: float
    p99: float
    ratio: float | None  # of CPU time to the reference in the same round; None where it didn't run
    ratio_min: float | None
    ratio_max: float | None


def summarise(runs: Sequence[Run]) -> list[Summary]:
    """Medians per case and proxy, in the order of their tables."""
    groups: defaultdict[tuple[int, int], list[Run]] = defaultdict(list)
    for run in runs:
        if not run.void:
            groups[list(CASES).index(run.case), list(PEERS).index(run.peer)].append(run)
    reference = {
        (run.case, run.round): run.cpu_microseconds for run in runs if run.peer == REFERENCE and not run.void
    }
    return [_summary(group, reference) for _, group in sorted(groups.items())]


def _summary(runs: Sequence[Run], reference: dict[tuple[str, int], float]) -> Summary:
    # Pair by pair: what disturbs a round disturbs both halves, so it cancels out in their ratio.
    pairs = [(run.cpu_microseconds, reference.get((run.case, run.round))) for run in runs]
    ratios = [own / other for own, other in pairs if other]
    return Summary(
        peer=runs[0].peer,
        case=runs[0].case,
        rounds=len(runs),
        cpu_microseconds=median(run.cpu_microseconds for run in runs),
        requests_per_second=median(run.requests_per_second for run in runs),
        p50=median(run.p50 for run in runs),
        p99=median(run.p99 for run in runs),
        ratio=median(ratios) if ratios else None,
        ratio_min=min(ratios, default=None),
        ratio_max=max(ratios, default=None),
    )


def show(summaries: Sequence[Summary], console: Console) -> None:
    """Prints one table per case."""
    for case in dict.fromkeys(summary.case for summary in summaries):
        table = Table(title=CASES[case].title, title_justify="left", min_width=76)
        table.add_column("proxy")
        for column in (
            "CPU µs/request",
            f"ratio to {REFERENCE}",
            "min–max",
            "requests/s",
            "p50 ms",
            "p99 ms",
        ):
            table.add_column(column, justify="right")
        for summary in summaries:
            if summary.case == case:
                table.add_row(*_row(summary))
        console.print(table)


def _row(summary: Summary) -> list[str]:
    ratio, span = "–", "–"
    if summary.ratio is not None:
        ratio = f"{summary.ratio:.2f}"
        span = f"{summary.ratio_min:.2f}–{summary.ratio_max:.2f}"
    return [
        summary.peer,
        f"{summary.cpu_microseconds:.1f}",
        ratio,
        span,
        f"{summary.requests_per_second:,.0f}",
        f"{summary.p50 / 1000:.2f}",
        f"{summary.p99 / 1000:.2f}",
    ]


def write(path: Path, about: dict[str, object], runs: Sequence[Run], summaries: Sequence[Summary]) -> None:
    """Writes everything as JSON: how it was measured, each run, the medians."""
    path.parent.mkdir(parents=True, exist_ok=True)
    everything = {
        **about,
        "summary": [asdict(summary) for summary in summaries],
        "runs": [{**asdict(run), "void": run.void} for run in runs],
    }
    path.write_text(json.dumps(everything, indent=2, ensure_ascii=False) + "\n")
