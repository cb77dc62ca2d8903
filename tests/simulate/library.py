"""The scenarios in config/scenarios/."""

from __future__ import annotations

from pathlib import Path

from lb.config.scenario import load_scenario
from lb.scenarios import scenario
from lb.simulate.scenario import Scenario

LIBRARY = sorted((Path(__file__).parents[2] / "config" / "scenarios").glob("*.yaml"))


def library(name: str) -> Scenario:
    (path,) = (path for path in LIBRARY if path.stem == name)
    return scenario(load_scenario(path), name)
