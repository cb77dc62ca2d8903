"""Fixtures that run the balancer as a process. Other folders of tests import them from here."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.process import Balancer, eventually, lives, running
from tests.e2e.scene import ONE_BACKEND, Scene, Stage, set_up

Play = Callable[..., Awaitable[Scene]]


@pytest.fixture
def balancer(tmp_path: Path) -> Iterator[Callable[[str], Balancer]]:
    """Starts balancers, each with the text of a configuration."""
    with ExitStack() as stack:

        def start(text: str) -> Balancer:
            directory = tmp_path / f"balancer-{len(list(tmp_path.iterdir()))}"
            directory.mkdir()
            return stack.enter_context(running(directory, text))

        yield start


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One balancer for the whole module, as the module's CONFIG says."""
    config = getattr(request.module, "CONFIG", ONE_BACKEND)
    with set_up(tmp_path_factory.mktemp("balancer"), config) as stage:
        yield stage


@pytest_asyncio.fixture
async def scene(stage: Stage) -> AsyncIterator[Scene]:
    """Fresh backends and clients around the balancer of the module."""
    scene = Scene(stage)
    await scene.start()
    yield scene
    await scene.close()


@pytest_asyncio.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """Sets a scene with a balancer of its own, for a configuration that no other test needs."""
    with ExitStack() as stack:
        scenes: list[Scene] = []

        async def start(config: str, files: int = 0) -> Scene:
            directory = tmp_path / f"balancer-{len(scenes)}"
            directory.mkdir()
            # In a thread, so that whom it asks when it starts can answer: that may be a server of the test.
            stage = await asyncio.to_thread(stack.enter_context, set_up(directory, config, files))
            scene = Scene(stage)
            await scene.start()
            scenes.append(scene)
            return scene

        yield start
        for scene in scenes:
            await scene.close()


@pytest_asyncio.fixture
async def processes() -> AsyncIterator[list[int]]:
    """The IDs of processes that are to end with the test: they are nobody's children."""
    started: list[int] = []
    yield started
    for process in started:
        if lives(process):
            os.kill(process, signal.SIGKILL)
    await eventually(lambda: not any(map(lives, started)), "their end")
