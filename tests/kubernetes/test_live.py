"""The tests that run against any cluster (KUBECONFIG), against ours."""

from __future__ import annotations

import pytest

from tests.discovery.test_kubernetes_live import *  # noqa: F403
from tests.discovery.test_kubernetes_live import cluster  # noqa: F401
from tests.kubernetes.controlplane import ControlPlane


@pytest.fixture(autouse=True)
def ours(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
