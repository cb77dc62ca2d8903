"""Access rules through reloads, with several workers, and as curl sees them."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from pathlib import Path

import bcrypt

from tests.conformance.strict import Response
from tests.e2e.conftest import Play
from tests.e2e.process import eventually
from tests.e2e.scene import Scene
from tests.e2e.wire import always, get
from tests.tools import need

CONFIG = """
access_log: {path: "-"}
errors: {401: {file: PAGE}, 403: {body: "not you\\n"}}
routes:
  - {match: {path_prefix: /denied}, deny: [127.0.0.1], pool: p}
  - {match: {path_prefix: /old}, redirect: "/new{path}{query}"}
  - match: {path_prefix: /new}
    respond: {body: "it is here\\n"}
    headers: {response: {set: {x-at: "{client}"}}}
  - {basic_auth: {file: USERS}, limits: {body: 1KiB}, pool: p}
pools: {p: {backends: [$a]}}
"""


def write_users(directory: Path, **passwords: str) -> None:
    lines = [
        f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
        for name, password in passwords.items()
    ]
    (directory / "users").write_text("".join(lines))


def config(directory: Path, more: str = "") -> str:
    (directory / "page.html").write_text("<p>{status}")
    text = CONFIG.replace("USERS", str(directory / "users")).replace("PAGE", str(directory / "page.html"))
    return more + text


async def as_user(scene: Scene, name: str, password: str) -> Response:
    login = b64encode(f"{name}:{password}".encode()).decode()
    return await scene.ask(get("/", f"Authorization: Basic {login}"))


def reload(scene: Scene) -> tuple[int, dict]:
    status, body = scene.balancer.ask("/api/reload", "POST")
    return status, json.loads(body)


async def test_a_reload_reads_the_files_anew(play: Play, tmp_path: Path) -> None:
    write_users(tmp_path, alice="one", bob="two")
    scene = await play(config(tmp_path))
    scene.backend.script = always()
    assert [(await as_user(scene, *each)).status for each in (("alice", "one"), ("bob", "two"))] == [200, 200]
    assert reload(scene) == (200, {"reloaded": True, "changed": [], "kept": []})

    write_users(tmp_path, alice="three")
    assert (await as_user(scene, "bob", "two")).status == 200, "not before the reload"
    assert reload(scene)[1]["changed"] == ["routes"]
    found = [
        (await as_user(scene, *each)).status
        for each in (("alice", "one"), ("bob", "two"), ("alice", "three"))
    ]
    assert found == [401, 401, 200], "who was remembered is forgotten"

    (tmp_path / "page.html").write_text("<h1>{status}")
    assert reload(scene)[1]["changed"] == ["errors"]
    response = await as_user(scene, "bob", "two")
    assert (response.body, response.get("content-type")) == (b"<h1>401", "text/html; charset=utf-8")


async def test_a_reload_with_mistakes_in_a_file_changes_nothing(play: Play, tmp_path: Path) -> None:
    write_users(tmp_path, alice="one")
    scene = await play(config(tmp_path))
    scene.backend.script = always()
    (tmp_path / "users").write_text("alice:one\ncarol\n")
    status, answer = reload(scene)
    assert status == 422
    assert [problem.rpartition("users:")[2].partition(":")[0] for problem in answer["problems"]] == ["1", "2"]
    assert (await as_user(scene, "alice", "one")).status == 200
    (tmp_path / "users").unlink()
    status, answer = reload(scene)
    assert status == 422
    assert answer["problems"][0].endswith("no such file or directory")


async def test_limits_of_a_listener_hold_for_new_connections(play: Play, tmp_path: Path) -> None:
    write_users(tmp_path, alice="one")
    listener = "listeners: [{bind: 127.0.0.1:0, limits: {LIMITS}}]\nadmin: {bind: 127.0.0.1:0}\n"
    scene = await play(config(tmp_path, listener.replace("LIMITS", "body: 1MiB")))
    old = await scene.connect()
    text = scene.balancer.config.read_text()
    scene.balancer.config.write_text(text.replace("body: 1MiB", "requests_per_connection: 1"))
    assert reload(scene)[0] == 200
    for client, close in ((old, None), (await scene.connect(), "close")):
        await client.send(get("/new"))
        assert (await client.response()).get("connection") == close


async def test_workers_have_the_same_rules(play: Play, tmp_path: Path) -> None:
    write_users(tmp_path, alice="one")
    scene = await play(config(tmp_path, "workers: 2\n"))
    scene.backend.script = always()
    answers = await asyncio.gather(*(as_user(scene, "alice", "one") for _ in range(20)))
    assert [response.status for response in answers] == [200] * 20
    for _ in range(8):  # by whichever worker
        response = await as_user(scene, "bob", "two")
        assert (response.status, response.body) == (401, b"<p>401")
        assert scene.balancer.record(response.get("x-request-id") or "")["failure"]["name"] == "unauthorized"
    response = await scene.ask(get("/old/a?b"))
    assert (response.status, response.get("location")) == (302, "/new/old/a?b")
    await eventually(lambda: scene.balancer.printed().count('"user":"alice"') == 20, "the log")
    write_users(tmp_path, bob="two")
    assert reload(scene)[1]["changed"] == ["routes"]
    for _ in range(8):
        assert (await as_user(scene, "bob", "two")).status == 200
        assert (await as_user(scene, "alice", "one")).status == 401


async def curl(scene: Scene, *arguments: str) -> tuple[str, str]:
    """What curl prints of an answer: the status that it ends with, and the body."""
    process = await asyncio.create_subprocess_exec(
        *(need("curl"), "-sS", "--noproxy", "*", "--max-time", "10", "-w", "\n%{http_code}", *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    body, _, status = out.decode().rpartition("\n")
    return status, body


async def test_curl(play: Play, tmp_path: Path) -> None:
    write_users(tmp_path, älice="pä:ss")
    scene = await play(config(tmp_path))
    scene.backend.script = always()
    address = f"http://{scene.balancer.address}"
    large = tmp_path / "large"
    large.write_bytes(bytes(100_000))
    assert await curl(scene, f"{address}/") == ("401", "<p>401")
    assert await curl(scene, "-u", "älice:pä:ss", f"{address}/") == ("200", "ok")
    assert await curl(scene, "--anyauth", "-u", "älice:pä:ss", f"{address}/") == ("200", "ok")
    assert (await curl(scene, "-u", "älice:wrong", f"{address}/"))[0] == "401"
    assert await curl(scene, f"{address}/denied") == ("403", "not you\n")
    assert await curl(scene, "-L", f"{address}/old/x?y=z") == ("200", "it is here\n")
    for fields in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"]):
        status, _ = await curl(
            scene, "-u", "älice:pä:ss", "--data-binary", f"@{large}", *fields, f"{address}/"
        )
        assert status == "413"
