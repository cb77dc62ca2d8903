from tests.e2e.conftest import balancer, play

__all__ = ["balancer", "play"]
