"""The fenced blocks of the pages. Behind the fence stands how one is checked: see CONTRIBUTING.md."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
import yaml

from lb.config import ConfigError, load, loads
from lb.config.scenario import scenario_of
from lb.scenarios import scenario
from tests.certificates import write_ca, write_pair
from tests.docs.pages import Block, blocks, files_of, pairs
from tests.e2e.process import PATIENCE, ROOT

KINDS = {"", "json", "python", "sh", "text", "yaml", "yaml foreign", "yaml part", "yaml pool"}
KINDS |= {"yaml scenario", "yaml wrong"}
SMALLEST = "pools: {greeter: {backends: [127.0.0.1:9001]}}\n"


def each(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", blocks(*kinds), ids=lambda block: block.place)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the files of a page are put, and what is imported from there is forgotten again."""
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in sys.modules[name].__file__:
            del sys.modules[name]


def write(directory: Path, block: Block) -> Path:
    """The block as `lb.yaml`, beside the Python files of its page."""
    for name, text in files_of(block.page).items():
        (directory / name).write_text(text)
    (directory / "lb.yaml").write_text(block.text)
    return Path("lb.yaml")


def test_every_kind_is_a_known_one() -> None:
    assert {block.kind for block in blocks()} <= KINDS


@each("yaml")
def test_a_whole_configuration_is_good(block: Block, directory: Path) -> None:
    load(write(directory, block))


@each("yaml part")
def test_a_part_of_a_configuration_is_good(block: Block, directory: Path) -> None:
    (directory / "config").symlink_to(ROOT / "config")  # files that pages name as those of the repository
    for name in re.findall(r"cert: ([\w.-]+)\.crt, key: \1\.key", block.text):
        write_pair(directory, trustme.CA(), name)
    for name in re.findall(r"client_ca: ([\w.-]+)\.crt", block.text):
        write_ca(directory, trustme.CA(), name)
    loads(block.text + SMALLEST, block.place)


@each("yaml pool")
def test_the_keys_of_a_pool_are_good(block: Block) -> None:
    pool = "".join(f"    {line}\n" for line in block.text.splitlines())
    loads("pools:\n  greeter:\n" + pool, block.place)


@each("yaml scenario")
def test_a_scenario_is_good(block: Block) -> None:
    scenario(scenario_of(block.text, block.place), "page")


@pytest.mark.parametrize(("block", "said"), pairs("yaml wrong", "text"), ids=lambda block: block.place)
def test_a_wrong_configuration_is_refused_in_these_words(block: Block, said: Block, directory: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(directory, block))
    assert str(caught.value) + "\n" == said.text


def test_every_wrong_configuration_has_its_words() -> None:
    assert len(blocks("yaml wrong")) == len(pairs("yaml wrong", "text")) > 0


@each("yaml foreign")
def test_what_is_for_other_programs_is_yaml(block: Block) -> None:
    assert isinstance(yaml.safe_load(block.text), dict)


@each("json")
def test_json_is_json(block: Block) -> None:
    assert isinstance(json.loads(block.text), dict)


@each("python")
def test_python_is_python(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize(("block", "said"), pairs("sh", "text"), ids=lambda block: block.place)
def test_a_program_of_the_pages_prints_what_they_say(block: Block, said: Block, directory: Path) -> None:
    programs = [line.split()[1] for line in block.text.splitlines() if line.startswith("python try_")]
    for program in programs:
        write(directory, block)
        done = subprocess.run(
            [sys.executable, program], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, said.text, "")
