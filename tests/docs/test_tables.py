"""The tables of the pages are those of the code."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lb.balance import policies
from lb.config import loads
from lb.control.admin import build_admin
from lb.control.state import AdminState
from lb.core.failure import FAILURES
from tests.docs.conftest import get
from tests.docs.pages import blocks, table
from tests.e2e.process import Balancer, until
from tests.test_floors import MAY_IMPORT

OPERATIONS = "docs/operations.md"


def test_failures() -> None:
    written = [
        (name, int(status), fault, message) for name, status, fault, message in table(OPERATIONS, "failure")
    ]
    assert written == [(name, each.status, each.fault, each.message) for name, each in FAILURES.items()]


@pytest.mark.parametrize("page", ["README.md", "docs/policies.md"])
def test_policies(page: str) -> None:
    assert {row[0] for row in table(page, "policy")} == set(policies())


def test_metrics(fleet: Balancer) -> None:
    text = fleet.ask("/metrics")[1]
    real = []
    for family in text_string_to_metric_families(text):
        if family.name.startswith("lb_"):
            total = "_total" if family.type == "counter" else ""
            assert family.samples, f"{family.name}: nothing has happened that it counts"
            labels = {name: None for sample in family.samples for name in sample.labels if name != "le"}
            real.append([family.name + total, family.type, ", ".join(labels), family.documentation])
    assert table(OPERATIONS, "metric") == real


def test_access_log(fleet: Balancer) -> None:
    lines = until(lambda: fleet.printed().splitlines(), "the access log")
    real = list(json.loads(lines[0]))
    assert [row[0] for row in table(OPERATIONS, "field")] == real
    shown = [block.text for block in blocks("json", page=OPERATIONS) if block.text.startswith('{"time"')]
    assert [list(json.loads(text)) for text in shown] == [real]


def test_admin_endpoints() -> None:
    state = AdminState("1.2.3", 0.0, {}, cast(Any, None), reload=cast(Any, True))
    real = {
        f"{route.method} {route.resource.canonical}"
        for route in build_admin(state).router.routes()
        if route.resource is not None and route.method not in ("HEAD", "*")
    }
    real = {each for each in real if " /v1/" not in each}  # those are in docs/registry.md
    assert {row[0] for row in table(OPERATIONS, "endpoint")} == real


def test_defaults() -> None:
    config = loads("pools: {NAME: {backends: [127.0.0.1:9001]}}\n").model_dump(mode="json")
    rows = table(OPERATIONS, "key")
    assert len(rows) > 10
    for key, default, _ in rows:
        value: Any = config
        for part in key.replace("[]", ".0").split("."):
            value = value[int(part)] if part.isdigit() else value[part]
        assert ("off" if value is None else str(value)) == default, key


def test_every_timeout_and_limit_of_a_listener_and_a_pool_is_there() -> None:
    config = loads("pools: {NAME: {backends: [127.0.0.1:9001]}}\n").model_dump(mode="json")
    listener, pool = config["listeners"][0], config["pools"]["NAME"]
    keys = {f"listeners[].{part}.{key}" for part in ("timeouts", "limits") for key in listener[part]}
    keys |= {f"pools.NAME.{part}.{key}" for part in ("timeouts", "keepalive") for key in pool[part]}
    assert {row[0] for row in table(OPERATIONS, "key")} == keys


def test_floors() -> None:
    for room, _, may in table("docs/architecture.md", "room"):
        name = room.removeprefix("lb/").strip("/")
        if name in MAY_IMPORT:
            assert set(may.split(", ")) - {"nothing of ours"} == MAY_IMPORT[name], room


def test_an_error_is_said_as_the_page_says(fleet: Balancer) -> None:
    answer = get(fleet, "/unreachable", Accept="application/json")
    (shown,) = (block for block in blocks("json", page=OPERATIONS) if '"error"' in block.text)
    real = json.loads(answer.body)
    assert {**json.loads(shown.text), "request_id": ""} == {**real, "request_id": ""}
    assert real["request_id"] == answer.id
