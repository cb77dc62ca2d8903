"""The JSON Schema: valid itself, and of one mind with the loader."""

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from lb.config import json_schema, loads
from lb.config.loader import parse
from lb.config.reference import reference
from lb.config.written import natural
from tests.config.helpers import problems

ROOT = Path(__file__).parents[2]
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def accepts(text: str) -> bool:
    """As an editor of YAML 1.2 sees the text."""
    document, _ = parse(text, "<string>")
    return VALIDATOR.is_valid(natural(document.value))


def test_it_is_a_schema():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_is_described_and_every_default_is_right():
    def walk(node, path):
        for key, inner in node.get("properties", {}).items():
            if not isinstance(inner, dict):
                continue
            described = "description" in inner or "description" in SCHEMA["$defs"].get(
                inner.get("$ref", "").rpartition("/")[2], {}
            )
            assert described or path[-1] == "then", (*path, key)
            if "default" in inner:
                Draft202012Validator(inner | {"$defs": SCHEMA["$defs"]}).validate(inner["default"])
            walk(inner, (*path, key))

    walk(SCHEMA, ("",))
    for name, model in SCHEMA["$defs"].items():
        walk(model, (name,))


def test_no_null_and_no_python_in_it():
    assert "null" not in str(SCHEMA).lower().replace("enum", "")
    assert SCHEMA["$defs"]["PoolTimeouts"]["properties"]["connect"]["default"] == "2s"
    assert SCHEMA["$defs"]["Admin"]["properties"]["bind"]["default"] == "127.0.0.1:9901"
    assert SCHEMA["$defs"]["HealthCheck"]["properties"]["expect"]["default"] == "200-399"


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_it_accepts_every_example(path):
    assert accepts(path.read_text())
    VALIDATOR.validate(yaml.safe_load(path.read_text()))  # and as YAML 1.1 reads it: off is false


POOL = "pools: {p: {backends: ['h:1']}}\n"
RIGHT = [
    "",
    "access_log: off\nadmin: false\n",
    "request_records: off\n",
    "request_records: 5\n",
    "expose_backend: on\n",
    "listeners: [{bind: '[::]:0', limits: {body: off, request_line: 8192}}]\n",
    "listeners: [{bind: 'h:0', limits: {body: 1MiB}}]\n",
    "routes: [{split: {p: 1}, match: {headers: {a: 1, b: true, c: x}}}]\n",
    "drain: {delay: 0s, timeout: 1.5m}\n",
]
WRONG = [
    "access_log: no\n",
    "access_log: '-'\n",
    "request_records: -1\n",
    "request_records: many\n",
    "expose_backend: 'yes'\n",
    "listeners: []\n",
    "listeners: [{}]\n",
    "listeners: [{bind: 8080}]\n",
    "listeners: [{bind: 'h:1', limits: {header_count: 0}}]\n",
    "routes: [{}]\n",
    "routes: [{pool: p, split: {p: 1}}]\n",
    "routes: [{split: {p: -1}}]\n",
    "drain: {delay: 5}\n",
    "drain: 5s\n",
    "workers: 1\n",
    "admin: {token: secret}\n",
    "admin: {token: {}}\n",
]
POOLS_RIGHT = [
    "balancer: p2c",
    "balancer: {policy: random}",
    "balancer: 'a:B'",
    "balancer: {policy: 'a.b:C', x: 1}",
    "health_check: off",
    "health_check: {type: tcp, rise: 1}",
    "health_check: {expect: 200}",
    "health_check: {expect: '200,300-399'}",
    "keepalive: off",
]
POOLS_WRONG = [
    "balancer: p2d",
    "balancer: {polcy: p2c}",
    "health_check: {type: tcp, path: /x}",
    "health_check: {rise: 0}",
    "health_check: {expect: 2xx}",
    "keepalive: on",
    "timeouts: {connect: 2}",
]


@pytest.mark.parametrize("text", RIGHT)
def test_it_accepts_what_the_loader_accepts(text):
    loads(text + POOL)
    assert accepts(text + POOL)


@pytest.mark.parametrize("text", WRONG)
def test_it_refuses_what_the_loader_refuses(text):
    assert problems(text + POOL)
    assert not accepts(text + POOL)


@pytest.mark.parametrize("line", POOLS_RIGHT)
def test_it_accepts_what_the_loader_accepts_in_a_pool(line):
    text = f"pools: {{p: {{backends: [h:1, {{address: 'h:2', id: 7}}], {line}}}}}"
    assert accepts(text)
    assert ":B" in line or ":C" in line or not problems(text)


@pytest.mark.parametrize("line", POOLS_WRONG)
def test_it_refuses_what_the_loader_refuses_in_a_pool(line):
    text = f"pools: {{p: {{backends: [h:1], {line}}}}}"
    assert problems(text)
    assert not accepts(text)


def test_the_reference_is_up_to_date():
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == reference(), "run: python -m lb.config.reference > docs/configuration.md"
