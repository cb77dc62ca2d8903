"""A shadow policy and zones, through the whole of the balancer."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Play
from tests.e2e.process import run
from tests.e2e.scene import Scene
from tests.e2e.test_reload import reload, signed
from tests.e2e.wire import GET

SHADOWED = """
workers: WORKERS
access_log: off
pools:
  greeter:
    balancer: round_robin
    shadow: SHADOW
    backends: [{id: a, address: $a}, {id: b, address: $b}]
"""
ZONED = """
zone: WHERE
access_log: off
pools:
  greeter:
    balancer: round_robin
    backends: [{id: a, address: $a, zone: here}, {id: b, address: $b, zone: there}]
"""


async def started(play: Play, config: str) -> Scene:
    scene = await play(config)
    for name, backend in scene.backends.items():
        backend.script = signed(name)
    return scene


@pytest.mark.parametrize("workers", [1, 2])
async def test_its_picks_are_counted_recorded_and_explained(play: Play, workers: int) -> None:
    config = SHADOWED.replace("WORKERS", str(workers))
    scene = await started(play, config.replace("SHADOW", "{policy: prequal, probes: 2}"))
    answers = [await scene.ask(GET) for _ in range(10)]
    assert sorted(each.body for each in answers) == [b"a"] * 5 + [b"b"] * 5 or workers == 2
    total = scene.balancer.metric("lb_pool_shadow_picks_total", pool="greeter")
    assert total == 10
    assert scene.balancer.metric("lb_pool_shadow_picks_total", result="failed") == 0
    request_id = answers[0].get("x-request-id") or ""
    shadow = scene.balancer.record(request_id)["attempts"][0]["pick"]["shadow"]
    assert (shadow["policy"], shadow["picked"] in ("a", "b")) == ("prequal", True)
    said = run("explain", "--admin", scene.balancer.admin, request_id).stdout
    assert "The shadow policy prequal would have taken" in said
    await reload(scene, config.replace("SHADOW", "off"))
    await scene.ask(GET)
    assert scene.balancer.metric("lb_pool_shadow_picks_total", pool="greeter") == total
    assert scene.balancer.api("/api/pools/greeter")["shadow"] is None


async def test_backends_of_our_own_zone_come_first(play: Play) -> None:
    scene = await started(play, ZONED.replace("WHERE", "here"))
    assert {(await scene.ask(GET)).body for _ in range(6)} == {b"a"}
    assert scene.balancer.metric("lb_pool_backends", state="standby") == 1
    await reload(scene, ZONED.replace("WHERE", "there"))
    assert {(await scene.ask(GET)).body for _ in range(6)} == {b"b"}
    await reload(scene, ZONED.replace("WHERE", "elsewhere"))
    assert {(await scene.ask(GET)).body for _ in range(6)} == {b"a", b"b"}
