"""The access log: one JSON line for each request, whatever became of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Play
from tests.e2e.process import until
from tests.e2e.scene import Scene
from tests.e2e.wire import GET, OK, always, get, head, post

KEYS = [
    "time",
    "request_id",
    "client",
    "user",
    "listener",
    "tls",
    "method",
    "host",
    "path",
    "status",
    "failure",
]
KEYS += ["route", "pool", "bytes_in", "bytes_out", "duration_ms", "request_ms", "backend", "attempts"]
KEYS += ["connect_ms", "first_byte_ms", "attempt_ms"]
POOL = "pools: {greeter: {backends: [{id: a, address: $a}]}}\n"


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def one_of_each(scene: Scene) -> list[str]:
    """A good request, a malformed one, one whose client leaves; their IDs where there is an answer."""
    client, backend = await scene.meet(post(b"hello", path=r"/a?b=\c"))
    await backend.send(OK)
    first = await client.response()
    second = await scene.ask(head("GET / HTTP/1.1"))
    await client.send(get("/left"))
    await backend.request()
    client.reset()
    await backend.gone()
    return [first.get("x-request-id") or "", second.get("x-request-id") or ""]


async def test_standard_output_has_a_line_for_each_request(play: Play) -> None:
    scene = await play(POOL)
    good_id, bad_id = await one_of_each(scene)
    text = until(lambda: scene.balancer.printed().count("\n") == 3 and scene.balancer.printed(), "the log")
    good, bad, left = lines(str(text))
    for line in (good, bad, left):
        assert list(line) == KEYS
        age = datetime.now(UTC) - datetime.fromisoformat(line["time"])
        assert timedelta(0) <= age < timedelta(seconds=10)
        assert (line["client"], line["listener"]) == ("127.0.0.1", scene.balancer.address)
    assert {key: good[key] for key in KEYS[7:15]} == {
        "host": "a.example",
        "path": r"/a?b=\c",
        "status": 200,
        "failure": None,
        "route": "routes[0]",
        "pool": "greeter",
        "bytes_in": 5,
        "bytes_out": 2,
    }
    assert (good["request_id"], good["method"]) == (good_id, "POST")
    assert (good["backend"], good["attempts"]) == ("a", 1)
    assert (
        0 <= good["connect_ms"] <= good["first_byte_ms"] <= good["attempt_ms"] <= good["duration_ms"] < 5000
    )
    assert (bad["request_id"], bad["status"], bad["failure"]) == (bad_id, 400, "bad_host")
    assert (bad["backend"], bad["attempts"], bad["connect_ms"], bad["pool"]) == (None, 0, None, "")
    assert (left["path"], left["status"], left["failure"]) == ("/left", 499, "client_gone")
    assert (left["backend"], left["first_byte_ms"]) == ("a", None)


async def test_a_file_is_appended_to_and_complete_when_the_balancer_has_stopped(
    play: Play, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    path.write_text('{"path": "of yesterday"}\n')
    scene = await play(POOL + f"access_log: {{path: {path}}}\n")
    scene.backend.script = always()
    client = await scene.connect()
    for number in range(500):
        await client.send(get(f"/{number}"))
        await client.response()
    assert scene.balancer.stop() == 0
    assert [line["path"] for line in lines(path.read_text())] == [
        "of yesterday",
        *(f"/{number}" for number in range(500)),
    ]
    assert scene.balancer.printed() == ""


async def test_bytes_of_every_kind_end_up_as_json(play: Play) -> None:
    scene = await play(POOL)
    scene.backend.script = always()
    odd = ("/?" + r"\u0000", "/%00%0a", "/" + "x" * 5000, "/'|[]?`{}^%")
    for target in odd:
        assert (await scene.ask(get(target))).status == 200
    await scene.ask(b"GET /\xff\xfe\x01 HTTP/1.1\r\nHost: \xe9\r\n\r\n")
    text = until(lambda: scene.balancer.printed().count("\n") == 5 and scene.balancer.printed(), "the log")
    paths = [line["path"] for line in lines(str(text))]
    assert paths[:4] == [target[:1024] for target in odd]


async def test_off_is_off(play: Play) -> None:
    scene = await play(POOL + "access_log: off\n")
    scene.backend.script = always()
    assert (await scene.ask(GET)).status == 200
    assert scene.balancer.stop() == 0
    assert scene.balancer.printed() == ""
