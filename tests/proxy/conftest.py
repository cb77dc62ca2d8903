import pytest

from tests.e2e.conftest import play, scene, stage
from tests.e2e.scene import Scene
from tests.proxy.echo import echo

__all__ = ["play", "scene", "served", "stage"]


@pytest.fixture
def served(scene: Scene) -> Scene:
    scene.backend.script = echo
    return scene
