"""Another configuration without an end: nothing that stays notices, nothing that runs is cut."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from pathlib import Path
from string import Template
from typing import Any

import pytest

from tests.e2e.conftest import Play
from tests.e2e.process import LISTENERS, eventually
from tests.e2e.scene import Scene
from tests.e2e.traffic import Traffic
from tests.e2e.wire import GET, Script, Wire, always, answer, get, head

ONE = "access_log: off\npools: {greeter: {backends: [$a]}}\n"
CHECKED = """
access_log: off
pools:
  greeter:
    health_check: {path: /healthz, interval: 30s}
    backends: [%s]
"""


def write(scene: Scene, config: str) -> None:
    """Another text for the file. $a, $b and so on are the addresses of the scene's backends."""
    addresses = {name: each.address for name, each in scene.backends.items()}
    text = Template(config).substitute(addresses)
    scene.balancer.config.write_text(text if "listeners:" in text else LISTENERS + text)


async def reload(scene: Scene, config: str = "", status: int = 200) -> dict[str, Any]:
    """What the balancer says to POST /api/reload, with another text if there is one."""
    if config:
        write(scene, config)
    found, body = await asyncio.to_thread(scene.balancer.ask, "/api/reload", "POST")
    assert found == status, body
    return dict(json.loads(body))


def signed(name: str) -> Script:
    return always(answer(name.encode()))


def requests(scene: Scene, name: str) -> int:
    return int(scene.balancer.metric("lb_backend_requests_total", backend=scene.backends[name].address))


# --- what stays, and what runs ---


async def test_under_load_no_request_fails_while_backends_come_and_go(play: Play) -> None:
    scene = await play(CHECKED % "$a, $b" + "# $c\n")
    for name, backend in scene.backends.items():
        backend.script = signed(name)
    await eventually(lambda: scene.balancer.metric("lb_pool_backends", state="eligible") == 2, "the backends")
    async with Traffic(scene.balancer.port) as traffic:
        for backends in ("$b, $c", "$c", "$a", "$a, $b", "$b, $c", "$a, $b, $c"):
            await reload(scene, CHECKED % backends + "# $a $b $c\n")
            known = set(traffic.bodies)
            traffic.bodies.clear()
            await traffic.go_on()
            # what was in flight at the reload still came from the others
            stay = {name.encode() for name in re.findall(r"\w", backends)}
            assert stay <= set(traffic.bodies) <= stay | known
    assert (traffic.failures, set(traffic.answers)) == ([], {200})
    assert scene.balancer.metric("lb_config_reloads_total", result="success") == 6


async def test_a_backend_that_stays_keeps_statistics_health_and_connections(play: Play) -> None:
    scene = await play(CHECKED % "$a, $b")
    served = dict.fromkeys(scene.backends, 0)

    def counted(name: str) -> Script:
        async def serve(wire: Wire) -> None:
            first = await wire.request()
            served[name] += not first.head.startswith(b"GET /healthz")
            await wire.send(answer(name.encode()))
            await always(answer(name.encode()))(wire)

        return serve

    for name, backend in scene.backends.items():
        backend.script = counted(name)
    await eventually(lambda: scene.balancer.metric("lb_pool_backends", state="eligible") == 2, "the backends")
    client = await scene.connect()
    for _ in range(20):
        await client.send(GET)
        await client.response()
    before = requests(scene, "a")
    connections = dict(served)
    assert before > 0
    said = await reload(scene, CHECKED % "$a")
    assert said["changed"] == ["pools.greeter.backends (1 gone)"]
    assert scene.balancer.metric("lb_backend_up") == 1, "it is not asked anew"
    assert requests(scene, "b") == 0, "its series have gone with it"
    await client.send(GET)
    assert (await client.response()).body == b"a", "on the same connection"
    assert requests(scene, "a") == before + 1
    assert served == connections


async def test_fifty_reloads_do_not_cut_a_download(play: Play) -> None:
    scene = await play(ONE + "# $b\n")
    client, backend = await scene.meet()
    await backend.send(head("HTTP/1.1 200 OK", "Content-Length: 500"))
    for number in range(50):
        config = ONE.replace("$a", "$b") if number % 2 else ONE + f"drain: {{delay: {number}ms}}\n"
        await reload(scene, config)
        await backend.send(b"%10d" % number)
        await client.until(b"%10d" % number)
    client.received = b""
    assert scene.balancer.metric("lb_config_reloads_total", result="success") == 50
    scene.backends["b"].script = always()
    await client.send(GET)
    assert (await client.response()).status == 200


async def test_tunnels_live_through_reloads(play: Play) -> None:
    """The pool of one gets another backend, loses the tunnel's own, and goes."""
    scene = await play(ONE + "# $b\n")
    client, backend = await scene.meet(get("/", "Connection: Upgrade", "Upgrade: chat"))
    await backend.send(head("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: chat"))
    await client.until(b"\r\n\r\n")
    configs = [ONE.replace("[$a]", "[$a, $b]"), ONE.replace("$a", "$b"), ONE.replace("greeter", "other")]
    for number, config in enumerate(configs):
        await reload(scene, config)
        await client.send(b"ping %d" % number)
        await backend.until(b"ping %d" % number)
        await backend.send(b"pong %d" % number)
        await client.until(b"pong %d" % number)
    client.end()
    assert await backend.ended() == "fin"


async def test_a_pool_that_goes_finishes_what_it_has_begun(play: Play) -> None:
    scene = await play(ONE + "# $b\n")
    client = await scene.connect()
    await client.send(GET)
    backend = await scene.backends["a"].accept()
    await backend.request()
    scene.backends["b"].script = signed("b")
    said = await reload(scene, "access_log: off\npools: {other: {backends: [$b]}}\n")
    assert said["changed"] == ["routes", "pools.greeter (gone)", "pools.other (new)"]
    assert (await scene.ask(GET)).body == b"b"
    await backend.send(answer(b"a"))
    assert (await client.response()).body == b"a"
    assert await backend.ended() in ("fin", "rst")
    assert [pool["name"] for pool in scene.balancer.api("/api/pools")["pools"]] == ["other"]


async def test_what_was_set_by_hand_stays(play: Play) -> None:
    config = "access_log: off\npools: {greeter: {backends: [{id: a, address: $a}, {id: b, address: $b}]}}"
    scene = await play(config)
    path = "/api/pools/greeter/backends/"
    scene.balancer.ask(path + "a", "PATCH", {"weight": 7})
    scene.balancer.ask(path + "b", "PATCH", {"state": "draining"})
    changed = config.replace("$b", "$b, weight: 3")
    assert (await reload(scene, changed))["changed"] == ["pools.greeter.backends (1 changed)"]
    a, b = scene.balancer.api("/api/pools/greeter")["backends"]
    assert (a["weight"], a["state"]) == (7, "active")
    assert (b["weight"], b["state"]) == (3, "draining")


# --- listeners ---


def two_listeners(first: int, second: int) -> str:
    binds = ", ".join(f"{{bind: 127.0.0.1:{port}}}" for port in (first, second) if port)
    return f"listeners: [{binds}]\nadmin: {{bind: 127.0.0.1:0}}\n" + ONE


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


async def test_listeners_come_and_go(play: Play) -> None:
    first, second = free_port(), free_port()
    scene = await play(two_listeners(first, 0))
    slow = asyncio.Event()

    async def serve(wire: Wire) -> None:
        while True:
            if b"/slow" in (await wire.request()).head:
                await slow.wait()
            await wire.send(answer(b"in full"))

    scene.backend.script = serve
    before = await scene.connect(first)
    await before.send(GET)
    await before.response()
    assert (await reload(scene, two_listeners(first, second)))["changed"] == ["listeners"]
    idle, busy = await scene.connect(second), await scene.connect(second)
    await busy.send(get("/slow"))
    await eventually(lambda: scene.balancer.metric("lb_backend_in_flight") == 1, "the request")
    await reload(scene, two_listeners(first, 0))
    with pytest.raises(ConnectionRefusedError):
        await scene.connect(second)
    slow.set()
    response = await busy.response()
    assert (response.body, response.get("connection")) == (b"in full", "close")
    assert await busy.ended() == await idle.ended() == "fin"
    await before.send(GET)
    assert (await before.response()).status == 200, "the other listener's connection notices nothing"
    name = f"127.0.0.1:{second}"
    page = f'lb_client_connections{{listener="{name}"}}'
    await eventually(
        lambda: page not in scene.balancer.ask("/metrics")[1], "the end of the listener's series"
    )


async def test_the_options_of_a_listener_hold_for_its_next_connections(play: Play) -> None:
    scene = await play(ONE)
    scene.backend.script = always()
    long = get("/" + "x" * 300)
    client = await scene.connect()
    config = LISTENERS.replace("0}]", "0, limits: {request_line: 256}}]") + ONE
    assert (await reload(scene, config))["changed"] == ["listeners"]
    await client.send(long)
    assert (await client.response()).status == 200
    assert (await scene.ask(long)).status == 414


async def test_admin_moves_and_wants_a_token(play: Play, tmp_path: Path) -> None:
    scene = await play(ONE)
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    port = free_port()
    said = await reload(
        scene,
        ONE
        + LISTENERS.replace(
            "admin: {bind: 127.0.0.1:0}", f"admin: {{bind: 127.0.0.1:{port}, token: {{file: {token}}}}}"
        ),
    )
    assert said["changed"] == ["admin.bind", "admin.token"], "and who asked still gets the answer"
    scene.balancer.admin = f"http://127.0.0.1:{port}"
    assert scene.balancer.ask("/readyz")[0] == 200
    assert scene.balancer.ask("/api/pools")[0] == 401


# --- policies, checks, names, records ---


async def test_everything_else_changes_too(play: Play) -> None:
    scene = await play(ONE)
    scene.backend.script = always()
    ids = [(await scene.ask(GET)).get("x-request-id") for _ in range(5)]
    kept = await scene.connect()
    await kept.send(GET)
    await kept.response()
    said = await reload(
        scene,
        """
access_log: off
request_id: {header: X-Trace}
expose_backend: true
request_records: 3
trusted_proxies: [127.0.0.1]
pools:
  greeter:
    balancer: round_robin
    backends: [$a]
    keepalive: off
    timeouts: {connect: 500ms}
workers: 2
""",
    )
    assert said == {
        "reloaded": True,
        "changed": [
            "trusted_proxies",
            "request_id.header",
            "expose_backend",
            "request_records",
            "pools.greeter.balancer.policy",
            "pools.greeter.timeouts.connect",
            "pools.greeter.keepalive",
        ],
        "kept": ["workers is still 1: it takes a restart"],
    }
    await kept.send(get("/", "X-Trace: a-trusted-one"))
    response = await kept.response()
    assert (response.get("x-trace"), response.get("x-request-id")) == ("a-trusted-one", None)
    assert response.get("x-backend") == scene.backend.address
    assert scene.balancer.record("a-trusted-one")["policy"] == "round_robin"
    assert scene.balancer.api("/api/requests")["held"] == 3
    assert scene.balancer.ask(f"/api/requests/{ids[0]}")[0] == 404
    assert scene.balancer.api("/api/config")["workers"] == 1


async def test_checks_begin_change_and_end(play: Play) -> None:
    scene = await play(ONE)
    scene.backend.script = always(answer(status="503 Service Unavailable"))
    assert scene.balancer.metric("lb_backend_up") == 1
    check = "    health_check: {path: /healthz, interval: 100ms, fall: 1, expect: %s}\n"
    config = "access_log: off\npools:\n  greeter:\n    backends: [$a]\n"
    await reload(scene, config + check % "200")
    await eventually(lambda: scene.balancer.metric("lb_backend_up") == 0, "a bad probe")
    await reload(scene, config + check % "503")
    await eventually(lambda: scene.balancer.metric("lb_backend_up") == 1, "a good probe")
    await reload(scene, config + check % "200")
    await eventually(lambda: scene.balancer.metric("lb_backend_up") == 0, "a bad probe")
    await reload(scene, config)
    assert scene.balancer.metric("lb_backend_up") == 1, "nobody would ask any more"


# --- what can't be ---


async def test_a_bad_file_changes_nothing_and_is_told_everywhere(play: Play) -> None:
    scene = await play(ONE)
    scene.backend.script = always()
    before = scene.balancer.api("/api/config")
    loaded = scene.balancer.metric("lb_config_last_reload_success_timestamp_seconds")
    body = await reload(scene, "acces_log: off\npools:\n  greeter:\n    backends: [127.0.0.1]\n", 422)
    file = scene.balancer.config
    wrong = file.read_text().splitlines()
    places = [number for number, line in enumerate(wrong, 1) if "acces_log" in line or "backends" in line]
    assert [problem.partition(": ")[0] for problem in body["problems"]] == [
        f"{file}:{places[0]}:1",
        f"{file}:{places[1]}:16",
    ]
    for problem in body["problems"]:
        assert f"not reloaded: {problem}" in scene.balancer.said()
    assert scene.balancer.api("/api/config") == before
    assert scene.balancer.metric("lb_config_reloads_total", result="failure") == 1
    assert scene.balancer.metric("lb_config_last_reload_success_timestamp_seconds") == loaded
    assert (await scene.ask(GET)).status == 200
    await reload(scene, ONE)
    assert scene.balancer.metric("lb_config_last_reload_success_timestamp_seconds") > loaded


BROKEN = """
from lb.balance import Balancer

class Broken(Balancer):
    def __init__(self, clock, rng, good: bool = True):
        super().__init__(clock, rng)
        if not good:
            raise ValueError("it is broken")

    def pick(self, request, backends):
        return backends[0]
"""


@pytest.mark.parametrize("wrong", ["port", "admin", "policy", "token", "log"])
async def test_what_the_machine_will_not_have_changes_nothing(play: Play, tmp_path: Path, wrong: str) -> None:
    scene = await play(ONE)
    scene.backend.script = always()
    (scene.balancer.config.parent / "broken.py").write_text(BROKEN)
    before = scene.balancer.api("/api/config")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, other = taken.getsockname()[1], free_port()
        listeners = f"[{{bind: 127.0.0.1:{other}}}, {{bind: 127.0.0.1:{port if wrong == 'port' else 0}}}]"
        admin = {"admin": f"{{bind: 127.0.0.1:{port}}}", "token": "{token: {env: NO_SUCH_VARIABLE}}"}
        body = await reload(
            scene,
            f"""
listeners: {listeners}
admin: {admin.get(wrong, "{bind: 127.0.0.1:0}")}
access_log: {{path: {tmp_path / "no" / "log" if wrong == "log" else tmp_path / "log"}}}
pools:
  greeter:
    backends: [$a]
    balancer: {{policy: "broken:Broken", good: {"false" if wrong == "policy" else "true"}}}
  more: {{backends: [$a]}}
routes: [{{pool: more}}]
""",
            422,
        )
    (problem,) = body["problems"]
    assert (
        problem
        == {
            "port": f"listener 127.0.0.1:{port}: address already in use",
            "admin": f"admin 127.0.0.1:{port}: address already in use",
            "policy": "pool greeter: policy broken:Broken can't be made: it is broken",
            "token": "the environment variable NO_SUCH_VARIABLE for the admin token isn't set",
            "log": f"can't write the access log: [Errno 2] No such file or directory: '{tmp_path}/no/log'",
        }[wrong]
    )
    assert f"not reloaded: {problem}" in scene.balancer.said()
    assert scene.balancer.api("/api/config") == before
    assert scene.balancer.metric("lb_config_reloads_total", result="failure") == 1
    assert (await scene.ask(GET)).status == 200
    with pytest.raises(ConnectionRefusedError):
        await scene.connect(other)


async def test_reloads_at_the_same_time_wait_for_each_other(play: Play) -> None:
    scene = await play(ONE)
    scene.backend.script = always()
    write(scene, ONE + "drain: {delay: 1s}\n")
    said = await asyncio.gather(*(reload(scene) for _ in range(8)))
    assert sorted(each["changed"] for each in said) == [[]] * 7 + [["drain.delay"]]


# --- the file, and the log ---


async def test_a_hangup_reloads_and_reopens_the_log(play: Play, tmp_path: Path) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    config = f"access_log: {{path: {path}}}\npools: {{greeter: {{backends: [$a]}}}}\n"
    scene = await play(config)
    scene.backend.script = always()
    for number, sign in enumerate((signal.SIGHUP, signal.SIGUSR1)):
        await scene.ask(get(f"/before-{number}"))
        path.rename(old)
        scene.balancer.send(sign)
        await eventually(path.exists, "another file")
        await scene.ask(get(f"/after-{number}"))
        await eventually(lambda: path.read_text(), "a line")
        assert [json.loads(line)["path"] for line in path.read_text().splitlines()] == [f"/after-{number}"]
        assert f"/before-{number}" in old.read_text()
    assert scene.balancer.metric("lb_config_reloads_total", result="success") == 1
    path.rename(old)
    path.mkdir()
    scene.balancer.send(signal.SIGUSR1)
    await eventually(lambda: "can't be reopened" in scene.balancer.said(), "the words")
    await scene.ask(get("/still"))
    await eventually(lambda: "/still" in old.read_text(), "a line in the old file")


async def test_the_log_moves_with_a_reload(play: Play, tmp_path: Path) -> None:
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    config = "access_log: {path: %s}\npools: {greeter: {backends: [$a]}}\n"
    scene = await play(config % one)
    scene.backend.script = always()
    await scene.ask(get("/one"))
    await reload(scene, config % two)
    await scene.ask(get("/two"))
    await eventually(lambda: two.exists() and "/two" in two.read_text(), "a line in the new file")
    assert "/one" in one.read_text()
    await reload(scene, ONE)
    await scene.ask(get("/nowhere"))


async def test_a_hangup_with_a_bad_file_is_logged(play: Play) -> None:
    scene = await play(ONE)
    scene.balancer.config.write_text("pools: 3\n")
    scene.balancer.send(signal.SIGHUP)
    problem = f"not reloaded: {scene.balancer.config}:1:8: pools: must be a mapping, not 3"
    await eventually(lambda: problem in scene.balancer.said(), "the problem")


async def test_a_link_that_is_turned_reloads(play: Play, tmp_path: Path) -> None:
    """As Kubernetes does with a ConfigMap: lb.yaml -> ..data/lb.yaml, and ..data -> a directory."""
    scene = await play("watch: true\n" + ONE)
    directory = scene.balancer.config.parent
    text = scene.balancer.config.read_text()
    for name, timeout in (("one", "1s"), ("two", "2s")):
        (directory / name).mkdir()
        (directory / name / "lb.yaml").write_text(text + f"drain: {{timeout: {timeout}}}\n")
    (directory / "..data").symlink_to("one")
    (directory / "link").symlink_to("..data/lb.yaml")
    (directory / "link").rename(scene.balancer.config)
    await eventually(lambda: scene.balancer.api("/api/config")["drain"]["timeout"] == "1s", "the first one")
    (directory / "..next").symlink_to("two")
    os.rename(directory / "..next", directory / "..data")
    await eventually(lambda: scene.balancer.api("/api/config")["drain"]["timeout"] == "2s", "the second one")
    assert scene.balancer.metric("lb_config_reloads_total", result="success") == 2


async def test_a_file_that_an_editor_replaces_reloads_once(play: Play) -> None:
    scene = await play("watch: true\n" + ONE)
    config = scene.balancer.config
    other = config.with_suffix(".swp")
    other.write_text(config.read_text() + "drain: {timeout: 7s}\n")
    config.unlink()
    other.rename(config)
    await eventually(lambda: scene.balancer.api("/api/config")["drain"]["timeout"] == "7s", "the change")
    config.write_text("pools: 3\n")
    await eventually(
        lambda: scene.balancer.metric("lb_config_reloads_total", result="failure") == 1, "a failure"
    )
    config.write_text(LISTENERS + f"pools: {{greeter: {{backends: ['{scene.backend.address}']}}}}\n")
    await eventually(lambda: scene.balancer.api("/api/config")["watch"] is False, "the end of watching")
    assert scene.balancer.metric("lb_config_reloads_total", result="failure") == 1
    assert scene.balancer.metric("lb_config_reloads_total", result="success") == 2
