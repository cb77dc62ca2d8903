"""Sticky sessions on the wire."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.strict import Response
from tests.e2e.conftest import Play
from tests.e2e.scene import Scene
from tests.e2e.test_reload import reload
from tests.e2e.wire import Script, Wire, answer, head

POOL = """
access_log: off
pools:
  greeter:
    balancer: random
    sticky: {cookie: lb, secret: {file: SECRET}}
    backends: [{id: a, address: $a}, {id: b, address: $b}, {id: c, address: $c}]
"""


FAILING: set[str] = set()
"""Who hangs up instead of answering."""


def replica(name: str, seen: list[str]) -> Script:
    """Says who it is, and remembers the cookies that reach it."""

    async def serve(wire: Wire) -> None:
        while True:
            request = await wire.request()
            seen.extend(request.all("cookie"))
            if name in FAILING:
                wire.close()
                return
            await wire.send(answer(name.encode()))

    return serve


async def sticky_scene(play: Play, directory: Path, config: str = POOL) -> tuple[Scene, list[str]]:
    FAILING.clear()
    secret = directory / "secret"
    secret.write_text("kept-to-ourselves\n")
    scene = await play(config.replace("SECRET", str(secret)))
    seen: list[str] = []
    for name, backend in scene.backends.items():
        backend.script = replica(name, seen)
    return scene, seen


async def ask(scene: Scene, cookie: str = "") -> Response:
    client = await scene.connect()
    fields = [f"Cookie: {cookie}"] if cookie else []
    await client.send(head("GET / HTTP/1.1", "Host: a.example", *fields))
    response: Response = await client.response()
    client.close()
    return response


def cookie_in(response: Response) -> str:
    [line] = response.all("set-cookie")
    value, _, attributes = line.partition("; ")
    assert attributes == "Path=/; HttpOnly; SameSite=Lax"
    return value


async def first(scene: Scene) -> tuple[bytes, str]:
    response = await ask(scene)
    return response.body, cookie_in(response)


async def stays(scene: Scene, body: bytes, cookie: str, count: int = 12) -> None:
    for _ in range(count):
        response = await ask(scene, f"theme=dark; {cookie}")
        assert response.body == body
        assert response.all("set-cookie") == []


async def change(scene: Scene, name: str, what: dict[str, Any]) -> None:
    path = f"/api/pools/greeter/backends/{name}"
    status, body = await asyncio.to_thread(scene.balancer.ask, path, "PATCH", what)
    assert status == 200, body


async def test_a_client_comes_back_and_the_backend_never_sees_the_cookie(play: Play, tmp_path: Path) -> None:
    scene, seen = await sticky_scene(play, tmp_path)
    clients = [await first(scene) for _ in range(8)]
    assert len({body for body, _ in clients}) > 1
    assert len(set(clients)) == len({body for body, _ in clients}), "one cookie for each backend"
    for body, cookie in clients[:3]:
        await stays(scene, body, cookie)
    assert set(seen) == {"theme=dark"}


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_holds_in_all_workers_and_over_a_reload_and_a_restart(
    play: Play, tmp_path: Path, workers: int
) -> None:
    config = f"workers: {workers}\n{POOL}"
    scene, _ = await sticky_scene(play, tmp_path, config)
    body, cookie = await first(scene)
    await stays(scene, body, cookie)
    text = config.replace("SECRET", str(tmp_path / "secret"))
    await reload(scene, text.replace("balancer: random", "balancer: least_request"))
    await stays(scene, body, cookie)
    await reload(scene, text.replace("sticky: {cookie: lb, ", "sticky: {cookie: other, "))
    assert {(await ask(scene, cookie)).body for _ in range(40)} == {b"a", b"b", b"c"}
    await asyncio.to_thread(scene.balancer.stop)
    # Another process, and every backend has another address: its ID is what counts.
    again, _ = await sticky_scene(play, tmp_path, config)
    await stays(again, body, cookie)


async def test_a_draining_one_keeps_its_own_and_a_disabled_one_does_not(play: Play, tmp_path: Path) -> None:
    scene, _ = await sticky_scene(play, tmp_path)
    body, cookie = await first(scene)
    name = body.decode()
    await change(scene, name, {"state": "draining"})
    await stays(scene, body, cookie)
    assert body not in {(await ask(scene)).body for _ in range(20)}
    record = scene.balancer.record((await ask(scene, cookie)).get("x-request-id") or "")
    pick = record["attempts"][0]["pick"]
    assert pick["reason"] == "its cookie lb names it, which it may while it drains"
    assert [each["in_flight"] for each in pick["candidates"] if each["picked"]] == [0]
    await change(scene, name, {"state": "disabled"})
    moved = await ask(scene, cookie)
    assert moved.body != body
    await stays(scene, moved.body, cookie_in(moved))


async def test_one_that_was_changed_is_as_good_as_none(play: Play, tmp_path: Path) -> None:
    scene, seen = await sticky_scene(play, tmp_path)
    _, cookie = await first(scene)
    for bad in (cookie[:-1] + ("A" if cookie[-1] != "A" else "B"), "lb=127.0.0.1:9001", "lb=", cookie + "x"):
        assert cookie_in(await ask(scene, bad)).startswith("lb=")
    assert seen == []


async def test_a_client_moves_when_its_backend_fails_its_request(play: Play, tmp_path: Path) -> None:
    scene, _ = await sticky_scene(play, tmp_path)
    body, cookie = await first(scene)

    FAILING.add(body.decode())
    moved = await ask(scene, cookie)
    assert (moved.status, moved.body != body) == (200, True)
    await stays(scene, moved.body, cookie_in(moved), 3)


async def test_a_switch_to_another_protocol_brings_it_too(play: Play, tmp_path: Path) -> None:
    scene, _ = await sticky_scene(play, tmp_path, POOL.replace("$b}, {id: c, address: $c", "$b"))

    async def switch(wire: Wire) -> None:
        await wire.request()
        fields = ("Connection: Upgrade", "Upgrade: chat")
        await wire.send(head("HTTP/1.1 101 Switching Protocols", *fields))
        await wire.until(b"bye")
        wire.close()

    for backend in scene.backends.values():
        backend.script = switch
    client = await scene.connect()
    await client.send(head("GET / HTTP/1.1", "Host: a.example", "Connection: Upgrade", "Upgrade: chat"))
    said = await client.until(b"\r\n\r\n")
    assert b"\r\nSet-Cookie: lb=" in said
    await client.send(b"bye")
    client.close()


async def test_without_a_secret_it_is_made_of_what_the_machine_has(play: Play, tmp_path: Path) -> None:
    config = POOL.replace(", secret: {file: SECRET}", "")
    scene, _ = await sticky_scene(play, tmp_path, f"workers: 2\n{config}")
    body, cookie = await first(scene)
    await stays(scene, body, cookie)


async def test_a_secret_that_can_not_be_read_changes_nothing(play: Play, tmp_path: Path) -> None:
    scene, _ = await sticky_scene(play, tmp_path)
    body, cookie = await first(scene)
    said = await reload(scene, POOL.replace("SECRET", str(tmp_path / "not-there")), 422)
    assert "can't read the secret of sticky sessions" in str(said["problems"])
    await stays(scene, body, cookie, 3)
