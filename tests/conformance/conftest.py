from tests.e2e.conftest import scene, stage

__all__ = ["scene", "stage"]
