"""The policy of the examples: it is found by its name, and does what it says."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from lb.balance import Balancer, policy_class
from lb.core.backend import Backend, BackendSpec
from lb.core.pool import Pool

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> type[Balancer]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return policy_class("my_policy:FewestBytes")


async def test_the_next_request_goes_where_the_fewest_bytes_came_from(policy: type[Balancer]) -> None:
    clock = asyncio.get_running_loop()
    pool = Pool("greeter", policy(clock, Random(1)), clock)
    pool.update([BackendSpec(name, "127.0.0.1", port) for port, name in enumerate("abc", 9001)])
    picked = []
    for size in (300, 200, 100, 250, 1):
        backend = pool.pick(None)
        assert isinstance(backend, Backend)
        pool.start(backend)
        pool.end(backend, clock.time(), None, status=200, received=size)
        picked.append(backend.id)
    assert "".join(picked) == "abccb"  # c: 100 is the least, then b: 200 against 300 and 350
