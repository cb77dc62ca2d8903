"""The manifests: rendered by kubectl, held against the schemas of Kubernetes, and to what they promise."""

from __future__ import annotations

import atexit
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import yaml

from lb.config import load
from lb.discovery.watch import LONGEST_WAIT
from tests.deploy.manifests import must_be_known, must_be_restricted, must_find_its_volumes
from tests.tools import need

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
FOLDERS = [".", "base/greeter", "base/balancer", "sidecar-server", "sidecar-client", "prometheus"]
KNOWS_FOLDERS = 21  # the minor version of kubectl since which `resources` may be folders
CONFIGURATIONS = sorted(KUBERNETES.rglob("lb.yaml"))


@cache
def _source(kubectl: str) -> Path:
    """The manifests, where need be in the words of an older kustomize: that of Debian 12 (kubectl 1.20) calls
    folders `bases`, and names patches by how they are merged."""
    said = subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True, check=False)
    found = re.search(r"v1\.(\d+)", said.stdout)
    assert found, said.stdout + said.stderr
    if int(found[1]) >= KNOWS_FOLDERS:
        return KUBERNETES
    copy = Path(mkdtemp(prefix="kustomize-")) / "kubernetes"
    atexit.register(shutil.rmtree, copy.parent)
    shutil.copytree(KUBERNETES, copy)
    for path in copy.rglob("kustomization.yaml"):
        words = yaml.safe_load(path.read_text())
        folders = [each for each in words["resources"] if not each.endswith(".yaml")]
        words["bases"], words["resources"] = (
            folders,
            [each for each in words["resources"] if each not in folders],
        )
        if "patches" in words:
            words["patchesStrategicMerge"] = [each["path"] for each in words.pop("patches")]
        path.write_text(yaml.safe_dump(words))
    return copy


def rendered(folder: str) -> str:
    kubectl = need("kubectl", "kubernetes-client")
    done = subprocess.run(
        [kubectl, "kustomize", str(_source(kubectl) / folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(folder: str) -> dict[tuple[str, str], Any]:
    found = [each for each in yaml.safe_load_all(rendered(folder)) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def pods(folder: str) -> Iterator[tuple[str, Any]]:
    for (kind, name), each in objects(folder).items():
        if kind == "Deployment":
            yield name, each["spec"]["template"]["spec"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_schemas_of_kubernetes_hold(folder: str, tmp_path: Path) -> None:
    must_be_known(yaml.safe_load_all(rendered(folder)), tmp_path)


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_are_restricted(folder: str) -> None:
    for _, pod in pods(folder):
        must_be_restricted(pod)


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_mounted_is_there(folder: str) -> None:
    there = objects(folder)
    for _, pod in pods(folder):
        must_find_its_volumes(pod, there)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_configurations_are_good(path: Path) -> None:
    assert load(path).admin is not None


@pytest.mark.parametrize("folder", [".", "sidecar-server", "sidecar-client"])
def test_there_is_time_to_drain(folder: str) -> None:
    there = objects(folder)
    for name, pod in pods(folder):
        grace = pod["terminationGracePeriodSeconds"]
        needed = 0.0
        for volume in pod.get("volumes", ()):
            if "configMap" in volume:
                text = there["ConfigMap", volume["configMap"]["name"]]["data"]["lb.yaml"]
                drain = yaml.safe_load(text)["drain"]
                needed += float(drain["delay"].rstrip("s")) + float(drain["timeout"].rstrip("s"))
        for container in pod["containers"]:
            for argument in container.get("args", ()):
                option, _, value = argument.partition("=")
                if option in ("--drain-delay", "--drain-timeout"):
                    needed += float(value.rstrip("s"))
        assert grace >= needed + 5, name


def test_who_drains_outlasts_who_asks_again() -> None:
    """When the API server comes back, pods may go at once: they are to be heard of while they still serve."""
    (container,) = objects(".")["Deployment", "greeter"]["spec"]["template"]["spec"]["containers"]
    (delay,) = [each for each in container["args"] if each.startswith("--drain-delay=")]
    assert float(delay.partition("=")[2].rstrip("s")) > LONGEST_WAIT


def test_the_balancer_may_see_endpoints_and_nothing_else() -> None:
    there = objects(".")
    assert there["Role", "lb"]["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    ]
    assert not [kind for kind, _ in there if kind.startswith("Cluster")]


def test_sidecars_are_native_ones() -> None:
    for folder, name in (("sidecar-server", "greeter"), ("sidecar-client", "client")):
        pod = objects(folder)["Deployment", name]["spec"]["template"]["spec"]
        (sidecar,) = pod["initContainers"]
        assert (sidecar["restartPolicy"], sidecar["image"]) == ("Always", "lb:latest")
        assert "startupProbe" in sidecar


def test_nobody_comes_past_the_sidecar() -> None:
    pod = objects("sidecar-server")["Deployment", "greeter"]["spec"]["template"]["spec"]
    (greeter,) = pod["containers"]
    assert not greeter.get("ports")
    assert "readinessProbe" not in greeter
    assert any(argument.startswith("--bind=127.0.0.1:") for argument in greeter["args"])


def test_prometheus_scrapes_with_the_token() -> None:
    there = objects("prometheus")
    monitor = there["ServiceMonitor", "lb"]["spec"]
    assert monitor["endpoints"][0]["authorization"]["credentials"] == {"name": "lb-admin", "key": "token"}
    labels = monitor["selector"]["matchLabels"]
    matched = [
        name for (kind, name), each in there.items()
        if kind == "Service" and labels.items() <= each["metadata"].get("labels", {}).items()
    ]  # fmt: skip
    assert matched == ["lb-admin"]
    template = there["Deployment", "lb"]["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == "9901"
