"""The chart and the manifests for Kustomize say the same, so that neither drifts away from the other."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.deploy.chart import Values, example, render
from tests.deploy.test_kubernetes import objects

# What makes the chart name things as the manifests do.
COMMON = {"image": {"tag": "latest"}, "adminToken": {"existingSecret": "lb-admin"}}
ALONE = {
    "podAntiAffinity": "none",
    "topologySpreadConstraints": [],
    "podDisruptionBudget": {"enabled": False},
}
SERVER: Values = {
    **COMMON,
    **ALONE,
    "mode": "sidecar-server",
    "fullnameOverride": "greeter",
    "podDisruptionBudget": {"enabled": True},
    "service": {"clusterIP": "None", "ports": [{"name": "http", "port": 8080, "targetPort": 8080}]},
    "serviceAccount": {"create": False},
}
CLIENT: Values = {
    **COMMON,
    **ALONE,
    "mode": "sidecar-client",
    "fullnameOverride": "client",
    "serviceAccount": {"name": "lb"},
    "greeter": {"enabled": True},
    "replicas": 1,
    "workload": example("sidecar-client")["workload"],
}
NAMES = {
    "lb-greeter": "greeter",
    "client-greeter": "greeter",
    "lb-config": "config",
    "lb-token": "token",
    "lb-tmp": "tmp",
    "lb-sidecar": "config",
}
TOKEN = [{"key": "token", "path": "token"}]
SELECTS = ("matchLabels", "selector")


def plain(node: Any, *path: str) -> Any:
    """What it says, whatever the things are called and marked with."""
    key = path[-1] if path else ""
    if path in (("metadata", "labels"), ("metadata", "annotations"), ("metadata", "namespace")):
        return None
    if path[:2] == ("spec", "template") and path[2:4] in (
        ("metadata", "labels"),
        ("metadata", "annotations"),
    ):
        annotations = node if key == "annotations" else {}
        return {name: each for name, each in annotations.items() if name != "checksum/config"} or None
    if key in SELECTS and isinstance(node, dict) and "matchLabels" not in node:
        return "…"  # that these select the right ones, is in test_helm.py and test_kubernetes.py
    if key == "data":
        config = yaml.safe_load(node["lb.yaml"])
        config.pop("watch", None)  # reloaded here; there, the name of the ConfigMap has a hash
        return plain(config, "data", "lb.yaml")
    if isinstance(node, dict):
        found = {name: plain(each, *path, name) for name, each in node.items()}
        if found.get("secretName") and found.get("items") == TOKEN:
            del found["items"]  # what a volume has of a Secret anyway
        if found.get("type") == "ClusterIP":
            del found["type"]  # as it is without
        if key != "metadata" and found.get("kind") == "ServiceAccount":
            found.pop("namespace", None)  # of a subject: that of the binding
        return {name: each for name, each in found.items() if each not in (None, [])}
    if isinstance(node, list):
        return [plain(each, *path) for each in node]
    if isinstance(node, str):
        node = re.sub(r"^(lb|lb-sidecar)-[a-z0-9]{10}$", r"\1", node)
        return NAMES.get(node, node)
    return node


def all_plain(items: dict[tuple[str, str], Any], *kinds: str) -> dict[tuple[str, str], Any]:
    found = [plain(each) for (kind, _), each in items.items() if not kinds or kind in kinds]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


@pytest.mark.parametrize(
    ("folder", "values"),
    [
        (".", COMMON),
        ("prometheus", {**COMMON, "metrics": {"annotations": True, "serviceMonitor": {"enabled": True}}}),
    ],
)
def test_in_front(folder: str, values: Values) -> None:
    chart, manifests = all_plain(render(values)), all_plain(objects(folder))
    assert chart.keys() == manifests.keys()
    for name, each in manifests.items():
        assert chart[name] == each, name


def without_zone(pod: Any) -> Any:
    """A sidecar of a server has one backend, so its zone is all the same; but the chart asks for it."""
    for each in pod["initContainers"]:
        assert [entry["name"] for entry in each.pop("env")] == ["LB_ZONE"]
    return pod


def mentioned(items: dict[tuple[str, str], Any]) -> Any:
    """The balancer's configuration of a sidecar, which has another name in each."""
    (config,) = [each["data"] for (kind, _), each in items.items() if kind == "ConfigMap"]
    return config


def pod_of(items: dict[tuple[str, str], Any], name: str) -> Any:
    pod = items["Deployment", name]["spec"]["template"]["spec"]
    for volume in pod["volumes"]:
        if "configMap" in volume:
            volume["configMap"] = {"name": "…"}
    return pod


def test_the_sidecar_of_a_server() -> None:
    kinds = ("Deployment", "Service", "PodDisruptionBudget", "ConfigMap")
    chart, manifests = all_plain(render(SERVER), *kinds), all_plain(objects("sidecar-server"), *kinds)
    assert mentioned(chart) == mentioned(manifests)
    for kind in ("Service", "PodDisruptionBudget"):
        assert chart[kind, "greeter"] == manifests[kind, "greeter"]
    ours, theirs = without_zone(pod_of(chart, "greeter")), pod_of(manifests, "greeter")
    assert ours.pop("serviceAccountName") == "default", "as if nothing was said"
    assert ours == theirs
    one, other = (each["Deployment", "greeter"]["spec"] for each in (chart, manifests))
    assert {**one, "template": None} == {**other, "template": None}


def test_the_sidecar_of_a_client() -> None:
    chart, manifests = all_plain(render(CLIENT)), all_plain(objects("sidecar-client"))
    assert mentioned(chart) == mentioned(manifests)
    for kind, name in manifests:
        if name == "greeter" or kind in ("ServiceAccount", "Role", "RoleBinding"):
            ours = [
                each for each in chart if each[0] == kind and (name == "greeter") == (each[1] == "greeter")
            ]
            assert len(ours) == 1
            one, other = chart[ours[0]], manifests[kind, name]
            for each in (one, other):  # a Role is called like the release
                each["metadata"] = each["roleRef"] = None
            assert one == other
    assert pod_of(chart, "client") == pod_of(manifests, "client")
