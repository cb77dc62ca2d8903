"""How far a long run is, on a terminal and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Told = Callable[[str, float], object]


@contextmanager
def showing_progress(console: Console, policies: int) -> Iterator[Told]:
    """What is to be told of the policy at work, and how far it is, from 0 to 1. The bar goes at the end."""
    if not console.is_terminal:
        yield lambda label, share: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=policies)
        done: list[str] = []

        def told(label: str, share: float) -> None:
            if not done or done[-1] != label:
                done.append(label)
            progress.update(task, description=label, completed=len(done) - 1 + share)

        yield told
