"""What the chart refuses, in which words; and the schema of its values."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.deploy.chart import CHART, Values, example, refusal, render
from tests.deploy.chart_schema import OWN, PATH, definitions, renewed

SCHEMA = json.loads(PATH.read_text("utf-8"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
STATIC = {"backends": ["127.0.0.1:9001"]}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"mode": "sidecar"},
            'mode must be one of the following: "front", "sidecar-server", "sidecar-client"',
        ),
        ({"servce": {}}, "Additional property servce is not allowed"),
        ({"image": {"tag": 1.2}}, "image.tag: Invalid type. Expected: string, given: number"),
        ({"image": {"digest": "1234"}}, "image.digest: Does not match pattern"),
        ({"nameOverride": "Not_A_Name"}, "nameOverride: Does not match pattern"),
        ({"replicas": "three"}, "replicas: Invalid type. Expected: integer, given: string"),
        ({"autoscaling": {"min": 2}}, "autoscaling: Additional property min is not allowed"),
        ({"podDisruptionBudget": {"maxUnavailable": "half"}}, "podDisruptionBudget.maxUnavailable"),
        (
            {"probes": {"liveness": {"httpGet": {}}}},
            "probes.liveness: Additional property httpGet is not allowed",
        ),
        (
            {"podAntiAffinity": "strong"},
            'podAntiAffinity must be one of the following: "soft", "hard", "none"',
        ),
        ({"service": {"ports": []}}, "service.ports: Array must have at least 1 items"),
        ({"service": {"ports": [{"name": "http", "port": 80}]}}, "service.ports.0: targetPort is required"),
        ({"service": {"ports": [{"name": "admin", "port": 80, "targetPort": 8080}]}}, "service.ports.0.name"),
        ({"service": {"ports": [{"name": "http", "port": 0, "targetPort": 8080}]}}, "service.ports.0.port"),
        ({"podLabels": {"a": 1}}, "podLabels.a: Invalid type. Expected: string, given: integer"),
        ({"env": [{"name": "A", "value": 1}]}, "env.0.value: Invalid type. Expected: string, given: integer"),
        ({"adminToken": {"value": "with a space"}}, "adminToken.value: Does not match pattern"),
        ({"workload": {"containers": [{"name": "app"}]}}, "workload.containers.0: image is required"),
        ({"greeter": {"enabled": "no"}}, "greeter.enabled: Invalid type"),
        # The balancer's own:
        ({"config": {"pool": {}}}, "config: Additional property pool is not allowed"),
        (
            {"config": {"pools": {"a": {**STATIC, "balancre": "p2c"}}}},
            "Additional property balancre is not allowed",
        ),
        (
            {"config": {"pools": {"a": {**STATIC, "balancer": "p3c"}}}},
            "config.pools.a.balancer must be one of",
        ),
        ({"config": {"drain": {"delay": "5 s"}}}, "config.drain.delay: Does not match pattern"),
        (
            {"config": {"drain": {"delay": 5}}},
            "config.drain.delay: Invalid type. Expected: string, given: integer",
        ),
        ({"config": {"listeners": [{"port": 80}]}}, "config.listeners.0: bind is required"),
        (
            {"config": {"access_log": {"pth": "-"}}},
            "config.access_log: Additional property pth is not allowed",
        ),
    ],
    ids=str,
)
def test_the_schema_refuses(values: Values, said: str) -> None:
    assert said in refusal(values)


def port(target: int) -> Values:
    return {"ports": [{"name": "http", "port": 80, "targetPort": target}]}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"terminationGracePeriodSeconds": 30},
            "terminationGracePeriodSeconds: 30 is too short: config.drain (delay 5s, timeout 25s), the 0s of "
            "preStopSleepSeconds take 30, and 5 more are for the end itself. Make it 35 or more, or leave",
        ),
        (
            {
                "terminationGracePeriodSeconds": 80,
                "preStopSleepSeconds": 10,
                "config": {"drain": {"timeout": "1.1m"}},
            },
            "80 is too short: config.drain (delay 5s, timeout 1.1m), the 10s of preStopSleepSeconds take 81",
        ),
        (
            {**example("sidecar-server"), "terminationGracePeriodSeconds": 39},
            "39 is too short: config.drain (delay 0s, timeout 5s), the 0s of preStopSleepSeconds and the "
            "30s of workload.drainSeconds take 35",
        ),
        (
            {"greeter": {"enabled": False}},
            "config.pools: say where the backends are, as in {api: {discovery: ",
        ),
        (
            {**example("sidecar-server"), "greeter": {"enabled": True}},
            "greeter.enabled: the pods have workload",
        ),
        ({"config": {"admin": False}}, "config.admin: can't be off, since it answers Kubernetes' probes"),
        (
            {"config": {"admin": {"bind": "127.0.0.1:9901"}}},
            "127.0.0.1:9901 can't be reached by Kube",
        ),
        ({"config": {"admin": {"bind": "[::1]:9901"}}}, "[::1]:9901 can't be reached by Kubernetes' probes"),
        (
            {"service": port(8443)},
            "service.ports[0].targetPort: no listener of the configuration is bound to port "
            "8443; there are: 8080",
        ),
        (
            {"service": port(8080), "config": {"listeners": [{"bind": "localhost:8080"}]}},
            "service.ports[0].targetPort: the listener localhost:8080 can't be reached",
        ),
        ({"autoscaling": {"minReplicas": 11}}, "autoscaling: minReplicas (11) is more than maxReplicas (10)"),
        (
            {"podDisruptionBudget": {"minAvailable": 1}},
            "podDisruptionBudget: takes one of",
        ),
        (
            {"podDisruptionBudget": {"maxUnavailable": None}},
            "podDisruptionBudget: takes one of maxUnavailable and",
        ),
        (
            {"adminToken": {"value": "a", "existingSecret": "b"}},
            "adminToken: existingSecret and value are both giv",
        ),
    ],
    ids=str,
)
def test_values_that_do_not_fit_each_other_are_refused(values: Values, said: str) -> None:
    assert said in refusal(values)


@pytest.mark.parametrize(
    ("values", "version", "said"),
    [
        (
            {"mode": "sidecar-server"},
            "1.28.9",
            "mode: sidecar-server takes native sidecars",
        ),
        (
            {"preStopSleepSeconds": 5},
            "1.29.1",
            "preStopSleepSeconds: Kubernetes can do so from 1.30 on; this",
        ),
        ({}, "1.24.0", "chart requires kubeVersion: >=1.25.0-0"),
    ],
)
def test_what_a_cluster_is_too_old_for(values: Values, version: str, said: str) -> None:
    assert said in refusal(values, f"--kube-version={version}")


def test_the_time_to_drain_is_added_up() -> None:
    def grace(**values: Any) -> int:
        pod = render(values)["Deployment", "lb"]["spec"]["template"]["spec"]
        return int(pod["terminationGracePeriodSeconds"])

    assert grace() == 5 + 25 + 10
    assert grace(config={"drain": {"delay": "500ms", "timeout": "1.5m"}}) == 91 + 10
    assert grace(preStopSleepSeconds=3) == 43
    assert grace(mode="sidecar-server") == 30 + 5 + 10
    assert grace(terminationGracePeriodSeconds=35) == 35
    assert grace(config={"drain": {"timeout": "1h"}}) == 3615


# --- the schema itself ---


def test_it_knows_the_configuration_of_today() -> None:
    text = PATH.read_text("utf-8")
    assert renewed(text) == text, "a key of the configuration is new: python -m tests.deploy.chart_schema"


def test_it_is_a_schema_and_all_of_it_is_used() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert {name for name in SCHEMA["$defs"] if not name.startswith(OWN)} == {*definitions()}
    text = PATH.read_text("utf-8")
    for name in SCHEMA["$defs"]:
        assert f'"#/$defs/{name}"' in text


def test_it_has_each_value_and_each_value_is_there() -> None:
    def same(values: Any, schema: Any, place: str) -> None:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        if "properties" not in schema or not isinstance(values, dict) or place in OPEN:
            return
        assert schema["additionalProperties"] is False, place
        assert set(values) == set(schema["properties"]) - {"global"}, place
        for name, each in values.items():
            same(each, schema["properties"][name], f"{place}.{name}".lstrip("."))

    same(VALUES, SCHEMA, "")
    for name, each in SCHEMA["properties"].items():
        assert each.get("description") or each.get("$ref"), name


OPEN = {
    "config",
    "resources",
    "probes.startup",
    "probes.liveness",
    "probes.readiness",
    "updateStrategy",
    "affinity",
}
"""What is empty as it is, or has more than what is given."""
