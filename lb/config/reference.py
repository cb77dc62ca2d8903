"""Prints docs/configuration.md: every key with its default, from the schema and the models' descriptions.

python -m lb.config.reference > docs/configuration.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from lb.config.schema import json_schema
from lb.config.shapes import OFF

_HEAD = """\
# Configuration

The file is YAML. This page is printed by `python -m lb.config.reference > docs/configuration.md` from the
models that check the file; [config/](../config/) has examples. `lb check -c FILE` tells every problem of a
file with its line and column. `lb schema > lb.schema.json` prints a JSON Schema, with which editors complete
and checks as you type: `# yaml-language-server: $schema=lb.schema.json` in the first line asks for it.

The smallest file that works; everything else has a default:

```yaml
pools:
  greeter:
    backends: [127.0.0.1:9001, 127.0.0.1:9002, 127.0.0.1:9003]
```

## How values are written

| kind | written | |
|---|---|---|
| duration | `250ms`, `5s`, `1.5m`, `1h` | a number and its unit, always both |
| size | `64KiB`, `1MiB`, `2GiB`, `8192` | a plain number is bytes |
| percentage | `20%`, `12.5%` | always with its sign |
| host:port | `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080` | IPv6 in brackets |
| statuses | `200-399`, `204`, `200,204,300-399`, `[502, 503, 504]` | ranges with both ends included |
| `off` | `off` or `false` | turns a section off, where the table says so |

Text needs no quotes, and what stands there is what is meant: a host named `on`, an ID `1.10` or `no` are text
where text is wanted (YAML 1.1 would make other things of them). Numbers are plain decimal, without quotes.
Anchors, aliases and merge keys (`<<`) work. A key with nothing behind it is a mistake: leave it out. Paths of
files are relative to the directory that `lb` was started in; those under `discovery` and `tls`, to the one of
this file.
"""

_Schema = dict[str, Any]


def reference() -> str:
    """The page."""
    whole = json_schema()
    sections = ["\n".join(_section(*each, whole["$defs"])) for each in _objects(whole, "", whole["$defs"])]
    return _HEAD + "\n" + "\n".join(sections)


def _objects(node: _Schema, path: str, models: _Schema) -> Iterator[tuple[str, _Schema]]:
    """The mapping that a key holds, if it holds one, and those inside of it, with their paths."""
    for form in _forms(node, models):
        if "properties" in form:
            yield path, form
            for key, inner in form["properties"].items():
                yield from _objects(inner, f"{path}.{key}" if path else key, models)
        elif form.get("type") == "array":
            yield from _objects(form["items"], f"{path}[]", models)
        for inner in form.get("patternProperties", {}).values():
            yield from _objects(inner, f"{path}.NAME", models)


def _forms(node: _Schema, models: _Schema) -> list[_Schema]:
    """The ways in which a value may be written."""
    if "$ref" in node:
        return [models[node["$ref"].rpartition("/")[2]]]
    if "anyOf" in node and "title" not in node:
        return [form for each in node["anyOf"] for form in _forms(each, models)]
    return [node]


def _section(path: str, schema: _Schema, models: _Schema) -> Iterator[str]:
    yield f"## `{path}`" if path else "## The whole"
    yield ""
    yield schema["description"]
    yield ""
    yield "| key | written as | default | |"
    yield "|---|---|---|---|"
    for key, node in schema["properties"].items():
        default = "must be given" if key in schema.get("required", ()) else _default(node)
        forms = _forms(node, models)
        words = node.get("description") or forms[0].get("description", "")
        kinds = " or ".join(_kind(form, models) for form in forms)
        yield f"| `{key}` | {kinds} | {default} | {words} |"
    if schema.get("additionalProperties") is True:
        yield "| … | | | The policy's own options: the parameters of its `__init__`. |"
    yield ""


def _default(node: _Schema) -> str:
    default = node.get("default")
    if default in (None, [], {}):
        return ""
    if isinstance(default, dict) or (isinstance(default, list) and isinstance(default[0], dict)):
        bind = default[0].get("bind") if isinstance(default, list) else None
        return f"`[{{bind: {bind}}}]`" if bind else "as below"
    return f"`{json.dumps(default) if isinstance(default, bool) else default}`"


def _kind(form: _Schema, models: _Schema) -> str:
    """A form in a few words."""
    if "properties" in form or "patternProperties" in form:
        return "mapping"
    if form.get("type") == "array":
        return "list; each " + " or ".join(_kind(each, models) for each in _forms(form["items"], models))
    if "additionalProperties" in form:
        return f"mapping to {_kind(form['additionalProperties'], models)}"
    if form == OFF:
        return "`off`"
    if "enum" in form:
        return " or ".join(
            f"`{word}`" for word in form["enum"] if type(word) is not bool and word not in _SWITCHES
        ) or ("`true` or `false`")
    if form.get("type") == "integer":
        return f"whole number, {form['minimum']} to {form['maximum']}"
    return str(form.get("title", "text"))


_SWITCHES = ("on", "off")

if __name__ == "__main__":
    sys.stdout.write(reference())
