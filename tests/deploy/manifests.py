"""What holds for all manifests, whoever has rendered them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml


def must_be_known(items: Iterable[Any], directory: Path) -> None:
    """As the schemas of Kubernetes have it, with no field that they don't know."""
    path = directory / "all.yaml"
    known = [each for each in items if each and "monitoring.coreos.com" not in str(each)]
    path.write_text(yaml.safe_dump_all(known))
    validate = Path(sys.executable).with_name("kubernetes-validate")
    done = subprocess.run([validate, "--strict", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed ") + done.stderr.count(" passed ") >= len(known) - 2, done.stdout


def must_be_restricted(pod: Mapping[str, Any]) -> None:
    """As the Pod Security Standard `restricted` has it, with a root that can't be written besides."""
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(pod):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False, container["name"]
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def must_find_its_volumes(pod: Mapping[str, Any], there: Mapping[tuple[str, str], Any]) -> None:
    """What is mounted is a volume of the pod, and a ConfigMap is one of those that are there."""
    volumes = {each["name"]: each for each in pod.get("volumes", ())}
    assert len(volumes) == len(pod.get("volumes", ()))
    for container in containers(pod):
        for mount in container.get("volumeMounts", ()):
            assert mount["name"] in volumes, mount
    for volume in volumes.values():
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in there


def containers(pod: Mapping[str, Any]) -> Iterator[Any]:
    yield from pod["containers"]
    yield from pod.get("initContainers", ())
