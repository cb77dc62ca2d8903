from tests.e2e.conftest import play, scene, stage

__all__ = ["play", "scene", "stage"]
