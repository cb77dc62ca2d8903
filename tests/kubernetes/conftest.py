"""A real Kubernetes for all tests here: see controlplane.py for what it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.kubernetes.controlplane import ControlPlane, control_plane
from tests.kubernetes.place import Place, place


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("kubernetes")) as plane:
        yield plane


@pytest_asyncio.fixture
async def here(plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Place]:
    async with place(plane, tmp_path) as here:
        yield here
