"""The house has floors: who may import whom, and where no I/O may be. See docs/architecture.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LB = Path(__file__).parent.parent / "lb"

PURE = {"core", "balance", "wire", "observe"}
IO = {"asyncio", "socket", "time", "threading", "aiohttp", "uvloop", "ssl", "subprocess"}
MAY_IMPORT = {
    "core": set(),
    "balance": {"core"},
    "wire": {"core"},
    "observe": {"core"},
    "proxy": {"core", "wire"},
    "discovery": {"core"},
    "control": {"core", "observe"},
    "simulate": {"core", "balance", "observe"},
    "config": {"balance", "core"},
}
FILES = sorted(LB.rglob("*.py"))


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in a file, relative ones made absolute."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = ["lb", *file.relative_to(LB).parts[: -node.level]]
                yield node.lineno, ".".join([*package, node.module or ""]).rstrip(".")
            else:
                for alias in node.names:  # `from lb import core` names a room too
                    yield (
                        node.lineno,
                        f"{node.module}.{alias.name}" if node.module == "lb" else node.module or "",
                    )


def floor_of(file: Path) -> str:
    parts = file.relative_to(LB).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(LB)))
def test_imports_only_go_down(file: Path) -> None:
    floor = floor_of(file)
    if floor not in MAY_IMPORT:
        return
    allowed = MAY_IMPORT[floor] | {floor, "__version__"}
    wrong = []
    for line, name in imported(file):
        head = name.split(".")
        if head[0] == "lb" and len(head) > 1 and head[1] not in allowed:
            wrong.append(f"{file}:{line}: {floor} may not import {name}")
        if floor in PURE and head[0] in IO:
            wrong.append(f"{file}:{line}: {floor} is pure, but imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_test_sees_an_upward_import(tmp_path: Path) -> None:
    file = LB / "core" / "clock.py"
    assert ("lb.core.seen") in {name for _, name in imported(LB / "core" / "record.py")}
    assert floor_of(file) == "core"


def test_policies_stay_small() -> None:
    """A policy is a file of under 40 lines."""
    shared = {"__init__.py", "base.py", "choosers.py", "hashing.py", "load.py", "meters.py"} | {
        "probes.py",
        "ring.py",
    }
    long = {
        file.name: count
        for file in (LB / "balance").glob("*.py")
        if file.name not in shared and (count := file.read_text().count("\n")) >= 40
    }
    assert not long
