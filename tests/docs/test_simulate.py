"""docs/simulate.md has every key of a scenario, and shows what the command prints."""

from __future__ import annotations

import pytest

from lb.config.latency import LatencySpec
from lb.config.scenario import ScenarioSpec, ServerSpec, SimulatedPool
from lb.config.section import Section
from tests.docs.pages import blocks, commands, table, text_of
from tests.e2e.process import run

PAGE = "docs/simulate.md"


@pytest.mark.parametrize(("heading", "section"), [("top level", ScenarioSpec), ("of a backend", ServerSpec)])
def test_every_key_has_a_row(heading: str, section: type[Section]) -> None:
    keys = [key for row in table(PAGE, heading) for key in row[0].split(", ")]
    assert sorted(keys) == sorted(section.written_keys())


def test_every_latency_and_every_rule_is_there() -> None:
    text = " ".join(row[0] for row in table(PAGE, "latency"))
    assert all(f"{{{key}: " in text for key in LatencySpec.written_keys())
    assert all(f"`{key}`" in text_of(PAGE) for key in SimulatedPool.written_keys())


def test_the_table_is_what_is_printed() -> None:
    (shown,) = blocks("text", page=PAGE)
    command = commands(PAGE)[0]
    printed = [line.rstrip() for line in run(*command.split()[1:]).stdout.splitlines() if line.strip()]
    assert printed == [line for line in shown.text.splitlines() if line]
