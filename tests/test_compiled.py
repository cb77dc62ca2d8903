"""The compiled modules, where they are: all or none of them, and none older than its source."""

import os
from importlib import import_module
from pathlib import Path

import pytest

import lb

SETUP = Path(__file__).parent.parent / "setup.py"


def hot_modules() -> list[str]:
    hot = SETUP.read_text().partition("HOT = ")[2].partition("}")[0] + "}"
    rooms: dict[str, str] = eval(hot)
    return [f"lb.{room}.{module}" for room, modules in rooms.items() for module in modules.split()]


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    return {name: Path(str(import_module(name).__file__)) for name in hot_modules()}


def test_all_or_none_are_compiled(files: dict[str, Path]) -> None:
    kinds = {file.suffix for file in files.values()}
    assert len(kinds) == 1
    assert lb.compiled() is (kinds == {".so"})


def test_none_is_older_than_its_source(files: dict[str, Path]) -> None:
    library = [*Path(lb.__file__).parent.parent.glob("lb__mypyc*.so")]
    for name, file in files.items():
        source = Path(lb.__file__).parent.joinpath(*name.split(".")[1:]).with_suffix(".py")
        if file != source:
            built = max(each.stat().st_mtime for each in library)
            assert built >= source.stat().st_mtime, f"{name} has changed: run make build"


def test_the_machine_that_checks_has_a_compiler() -> None:
    if os.environ.get("CI") == "true" and os.environ.get("LB_COMPILE") != "0":
        assert lb.compiled()
