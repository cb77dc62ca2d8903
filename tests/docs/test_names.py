"""Commands, options, targets, files and names that the pages mention exist."""

from __future__ import annotations

import ast
import re
from functools import cache

import click
import pytest

from lb.cli import main
from tests.docs.pages import PAGES, ROOT, commands, spans
from tests.test_floors import IO

ROOMS_TO_COME = {"lb/discovery/"}
MADE = {"benchmarks/results/"}


def mentioned(page: str) -> list[str]:
    return [*commands(page), *spans(page)]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_exists(page: str) -> None:
    for text in mentioned(page):
        match = re.match(r"lb ([a-z][a-z-]*)(?!\S)(.*)", text)
        if not match:
            continue
        command = main.commands.get(match[1])
        assert command is not None, f"{page}: {text}"
        known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
        assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", match[2])) <= known, f"{page}: {text}"


def test_every_option_is_mentioned() -> None:
    words = set(spans("docs/operations.md"))
    for name, command in main.commands.items():
        assert any(re.match(rf"lb {name}\b", word) for word in words), name
        for parameter in command.params:
            if isinstance(parameter, click.Option) and "--help" not in parameter.opts:
                said = [
                    word for word in words for option in parameter.opts if option in re.split(r"[ /]", word)
                ]
                assert said, f"lb {name} {parameter.opts}"


@cache
def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_exists(page: str) -> None:
    for text in mentioned(page):
        match = re.match(r"make ([a-z-]+)", text)
        if match:
            assert match[1] in targets(), f"{page}: {text}"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_exists(page: str) -> None:
    for text in spans(page):
        path = re.fullmatch(r"(lb|tests|docs|config|benchmarks|examples|deploy|\.ci)/[\w./-]*", text)
        if path and text not in ROOMS_TO_COME | MADE:
            assert (ROOT / text).exists(), f"{page}: {text}"
            assert (ROOT / text).is_dir() == text.endswith("/"), f"{page}: {text}"


# --- names of the code ---


@cache
def classes() -> dict[str, set[str]]:
    """What each class of the house has: methods and attributes, its own and those of its bases."""
    found: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}
    for file in (ROOT / "lb").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).update(_members(node))
                bases.setdefault(node.name, []).extend(ast.unparse(base) for base in node.bases)
    for name, members in found.items():
        for base in bases[name]:
            members |= found.get(base, set())
    return found


def _members(node: ast.ClassDef) -> set[str]:
    members = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            members.add(inner.name)
        elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            members.add(inner.attr)
        elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
            members.add(inner.target.id)
    return members


@cache
def words() -> set[str]:
    """Every word of the code."""
    return {word for file in (ROOT / "lb").rglob("*.py") for word in re.findall(r"\w+", file.read_text())}


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/policies.md", "CONTRIBUTING.md"])
def test_every_name_of_the_code_exists(page: str) -> None:
    for text in spans(page):
        match = re.fullmatch(r"([A-Z]\w+)\.(\w+)(?:\(.*\))?", text)
        if match:
            assert match[2] in classes().get(match[1], set()), f"{page}: {text}"
        elif page == "docs/architecture.md" and re.fullmatch(r"[A-Za-z_]\w*(\(\))?", text):
            assert text.removesuffix("()") in words() | IO, f"{page}: {text}"


def test_every_room_has_a_row() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {
        path.name for path in (ROOT / "lb").iterdir() if path.is_dir() and (path / "__init__.py").exists()
    }
    assert rooms
    for room in rooms:
        assert f"| `lb/{room}/` |" in page
