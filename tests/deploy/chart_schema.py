"""The part of the chart's `values.schema.json` that is the balancer's configuration. After a change of that:

python -m tests.deploy.chart_schema
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lb.config import json_schema

PATH = Path(__file__).parents[2] / "deploy" / "helm" / "values.schema.json"
OWN = "chart."  # so the names of definitions begin that are written by hand
_BEHIND = re.compile(r"\(\?![^()]*(\([^()]*\)\?)?[^()]*\)")


def _without_look_ahead(node: Any) -> Any:
    """Helm's regular expressions are Go's, which can't look ahead. What that refuses (a zero where there
    can't be one), the balancer refuses, too."""
    if isinstance(node, dict):
        found = {key: _without_look_ahead(value) for key, value in node.items()}
        if isinstance(pattern := found.get("pattern"), str):
            found["pattern"] = _BEHIND.sub("", pattern)
            assert "(?" not in found["pattern"], f"Go's regular expressions may not know this: {pattern}"
        return found
    return [_without_look_ahead(each) for each in node] if isinstance(node, list) else node


def definitions() -> dict[str, Any]:
    """The configuration and its sections, as Helm reads them."""
    config = json_schema()
    sections = config.pop("$defs")
    del config["$schema"], config["required"]  # the chart may fill them in
    return {"Config": _without_look_ahead(config)} | dict(sorted(_without_look_ahead(sections).items()))


def renewed(text: str) -> str:
    """The file with the definitions of today: one on a line."""
    head, mark, _ = text.partition('  "$defs": {\n')
    own = {name: each for name, each in json.loads(text)["$defs"].items() if name.startswith(OWN)}
    lines = [f"    {json.dumps(name)}: {json.dumps(each)}" for name, each in (own | definitions()).items()]
    return head + mark + ",\n".join(lines) + "\n  }\n}\n"


if __name__ == "__main__":
    PATH.write_text(renewed(PATH.read_text("utf-8")), "utf-8")
