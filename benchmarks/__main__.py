"""The command: `python -m benchmarks --help`."""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console

from . import backends, load, report
from .cases import CASES, PLAIN, Case, chosen
from .machine import ROOT, StartError, description, share_cores
from .measure import Run, Settings, WrongAnswerError, measure
from .peers import PEERS, Peer

SUBJECT = "lb"  # always runs; the peers are a matter of choice


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="This balancer and its peers, side by side."
    )
    parser.add_argument("--duration", type=_positive, default=5, help="seconds of each measured window (5)")
    parser.add_argument("--warmup", type=int, default=1, help="seconds of load before each window (1)")
    parser.add_argument(
        "--rounds", type=_positive, default=3, help="how often every proxy runs in every case (3)"
    )
    parser.add_argument("--connections", type=_positive, default=64, help="keep-alive connections (64)")
    parser.add_argument(
        "--only",
        type=_names(CASES),
        default=PLAIN,
        help=f"cases, of {','.join(CASES)} ({','.join(PLAIN)})",
    )
    parser.add_argument(
        "--peers",
        type=_names(PEERS),
        default=["nginx", "haproxy"],
        help=f"of {','.join(PEERS)} (nginx,haproxy)",
    )
    parser.add_argument(
        "--load", choices=load.GENERATORS, default=load.default_generator(), help="the load generator"
    )
    parser.add_argument("--json", type=Path, help="where to write (benchmarks/results/TIME.json)")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        wanted = [name for name in text.split(",") if name]
        for name in wanted:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return wanted

    return names


def installed(names: Sequence[str], console: Console) -> list[Peer]:
    """The proxies to run; says which are left out."""
    peers = [PEERS[name] for name in dict.fromkeys([SUBJECT, *names])]
    for peer in peers:
        if peer.path() is None:
            console.print(f"[yellow]{peer.name} isn't installed: left out")
    return [peer for peer in peers if peer.path() is not None]


def run_rounds(
    peers: list[Peer], cases: list[Case], rounds: int, settings: Settings, console: Console
) -> list[Run]:
    """Every proxy in turn, in every round of every case. One that fails is left out from there on."""
    runs: list[Run] = []
    broken: set[str] = set()
    for case in cases:
        for number in range(rounds):
            first = number % len(peers)  # nobody is always the one after the heavy neighbour
            for peer in peers[first:] + peers[:first]:
                if peer.name in broken:
                    continue
                try:
                    run = measure(peer, case, number, settings)
                except (StartError, WrongAnswerError, OSError, RuntimeError) as error:
                    broken.add(peer.name)
                    console.print(f"[bold red]{peer.name} is left out: {error}", markup=True, highlight=False)
                    continue
                runs.append(run)
                _tell(run, rounds, console)
    return runs


def _tell(run: Run, rounds: int, console: Console) -> None:
    place = f"{run.case:>5} round {run.round + 1}/{rounds} {run.peer:<8}"
    if run.void:
        console.print(
            f"[bold red]{place} VOID: {run.errors} errors in {run.requests} requests", highlight=False
        )
    else:
        console.print(
            f"{place} {run.cpu_microseconds:7.1f} µs {run.requests_per_second:9,.0f}/s",
            style="dim",
            highlight=False,
        )


def main() -> int:
    """Runs it all. Exit 0; 1 when something was void or left out for a fault."""
    options = arguments()
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that every finally runs
    machine, cores = description(), share_cores()
    if os.getloadavg()[0] > 0.5:
        console.print("[yellow]this machine has other work to do (see uptime): the figures will be noisy")
    peers = installed(options.peers, console)
    cases = chosen(options.only)
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as name:
        directory = Path(name)
        with backends.running(directory, cores.backends) as ports:
            settings = Settings(
                cores, ports, directory, options.load, options.connections, options.duration, options.warmup
            )
            runs = run_rounds(peers, cases, options.rounds, settings, console)
    summaries = report.summarise(runs)
    report.show(summaries, console)
    path = options.json or ROOT / "benchmarks" / "results" / time.strftime("%Y%m%d-%H%M%S.json")
    about: dict[str, object] = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": machine,
        "versions": {peer.name: peer.version() for peer in peers},
        "options": {key: value for key, value in vars(options).items() if key != "json"},
    }
    report.write(path, about, runs, summaries)
    console.print(f"written to {path}", highlight=False)
    complete = len(runs) == len(peers) * len(cases) * options.rounds
    return 0 if complete and not any(run.void for run in runs) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
