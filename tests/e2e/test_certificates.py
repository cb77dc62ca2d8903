"""Certificates and listeners that change while connections are there: renewal, reload, workers, handover."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import ssl
from pathlib import Path

import pytest
import trustme

from tests.certificates import client_context, self_signed, write_ca, write_pair
from tests.e2e.conftest import Play
from tests.e2e.process import eventually, run
from tests.e2e.scene import Scene
from tests.e2e.wire import GET, OK, Wire, get

OLD, NEW = trustme.CA(), trustme.CA()
REST = """
access_log: off
admin: {bind: 127.0.0.1:0}
drain: {timeout: 2s}
pools: {greeter: {backends: [$a], retries: off, outlier_detection: off}}
"""


def config(cert: str, key: str, bind: str = "127.0.0.1:0", more: str = "", workers: int = 1) -> str:
    tls = f"{{certificates: [{{cert: {cert}, key: {key}}}]{more}}}"
    return f"workers: {workers}\nlisteners: [{{bind: '{bind}', tls: {tls}}}]\n{REST}"


async def trusts(scene: Scene, ca: trustme.CA) -> bool:
    """Whether the certificate that is shown now is of this authority."""
    try:
        client = await scene.connect(tls=client_context(ca))
    except ssl.SSLCertVerificationError:
        return False
    client.close()
    return True


async def becomes(scene: Scene, ca: trustme.CA) -> None:
    async with asyncio.timeout(15):
        while not await trusts(scene, ca):
            pass


async def served(client: Wire) -> None:
    await client.send(GET)
    assert (await client.response()).status == 200


async def reload(scene: Scene, change: tuple[str, str]) -> None:
    said = scene.balancer.said().count("reloaded:")
    text = scene.balancer.config.read_text()
    assert change[0] in text
    scene.balancer.config.write_text(text.replace(*change))
    scene.balancer.send(signal.SIGHUP)
    await eventually(lambda: scene.balancer.said().count("reloaded:") > said, "the reload")


@pytest.mark.parametrize("workers", [1, 2])
async def test_changed_files_are_shown_without_cutting_anyone(
    play: Play, tmp_path: Path, workers: int
) -> None:
    pair = write_pair(tmp_path, OLD, "localhost")
    scene = await play(config(*pair, workers=workers))
    scene.backend.serve(OK)
    staying = await scene.connect(tls=client_context(OLD))
    await served(staying)
    write_pair(tmp_path, NEW, "localhost")
    for _ in range(2 * workers):  # each worker for itself
        await becomes(scene, NEW)
    await eventually(lambda: scene.balancer.said().count("loaded anew") > workers - 1, "the log")
    await served(staying)
    assert scene.balancer.metric(
        "lb_tls_certificate_expiry_timestamp_seconds", listener=scene.balancer.address
    )
    assert scene.balancer.metric("lb_tls_handshakes_total", result="success") >= 2


async def test_links_are_followed_as_kubernetes_turns_them(play: Play, tmp_path: Path) -> None:
    for name, ca in (("..1", OLD), ("..2", NEW)):
        (tmp_path / name).mkdir()
        write_pair(tmp_path / name, ca, "localhost")
    (tmp_path / "..data").symlink_to("..1")
    for name in ("localhost.crt", "localhost.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    scene = await play(config(str(tmp_path / "localhost.crt"), str(tmp_path / "localhost.key")))
    assert await trusts(scene, OLD)
    (tmp_path / "..data_tmp").symlink_to("..2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    await becomes(scene, NEW)


async def test_a_broken_pair_leaves_the_old_one_until_it_is_mended(play: Play, tmp_path: Path) -> None:
    cert, key = write_pair(tmp_path, OLD, "localhost")
    scene = await play(config(cert, key))
    aside = tmp_path / "aside"
    aside.mkdir()
    new_cert, new_key = write_pair(aside, NEW, "localhost")
    os.replace(new_cert, cert)
    await eventually(lambda: "isn't the key of the certificate" in scene.balancer.said(), "the complaint")
    assert await trusts(scene, OLD)
    said = scene.balancer.said()
    assert "goes on with the certificates that it has" in said
    scene.balancer.send(signal.SIGHUP)  # which is told the same, and changes nothing
    await eventually(lambda: "not reloaded:" in scene.balancer.said(), "the refusal")
    assert await trusts(scene, OLD)
    os.remove(key)  # nor is it a reason to look again
    await asyncio.sleep(1.2)
    assert await trusts(scene, OLD)
    os.replace(new_key, key)
    await becomes(scene, NEW)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_listener_turns_to_tls_and_back_by_a_reload(play: Play, tmp_path: Path, workers: int) -> None:
    cert, key = write_pair(tmp_path, OLD, "localhost")
    scene = await play(
        f"workers: {workers}\nlisteners:\n- bind: 127.0.0.1:0\n"
        f"  tls: off # {{certificates: [{{cert: {cert}, key: {key}}}]}}\n{REST}"
    )
    let = asyncio.Event()

    async def answers(wire: Wire) -> None:
        while True:
            if b"/slow" in (await wire.request()).head:
                await let.wait()
            await wire.send(OK)

    scene.backend.script = answers
    before, busy = await scene.connect(), await scene.connect()
    await served(before)
    await busy.send(get("/slow"))
    await eventually(lambda: scene.balancer.metric("lb_backend_in_flight") == 1, "the request")
    await reload(scene, ("tls: off # ", "tls: "))
    await before.gone()  # who came in by the other way has to leave, but no request is cut
    let.set()
    assert (await busy.response()).status == 200
    await busy.ended()
    secure = await scene.connect(tls=client_context(OLD))
    await served(secure)
    plain = await scene.connect()
    await plain.send(GET)
    assert (await plain.response()).status == 400
    await reload(scene, ("tls: {", "tls: off # {"))
    await secure.gone()
    await served(await scene.connect())


async def test_a_reload_may_ask_clients_for_certificates(play: Play, tmp_path: Path) -> None:
    cert, key = write_pair(tmp_path, OLD, "localhost")
    ca = write_ca(tmp_path, NEW)
    scene = await play(config(cert, key))
    scene.backend.serve(OK)
    anonymous = await scene.connect(tls=client_context(OLD))
    await served(anonymous)
    await reload(scene, ("]}}]", f"], client_ca: {ca}}}}}]"))
    await anonymous.gone()
    context = client_context(OLD)
    NEW.issue_cert("client@a.example").configure_cert(context)
    await served(await scene.connect(tls=context))
    unchanged = await scene.connect(tls=context)
    await served(unchanged)
    await reload(scene, ("drain: {timeout: 2s}", "drain: {timeout: 3s}"))
    await served(unchanged)  # nothing about its entrance is different


async def test_the_next_process_speaks_tls_on_the_same_sockets(
    play: Play, tmp_path: Path, processes: list[int]
) -> None:
    pair = write_pair(tmp_path, OLD, "localhost")
    scene = await play(config(*pair))
    scene.backend.serve(OK)
    before = await scene.connect(tls=client_context(OLD))
    await served(before)
    scene.balancer.send(signal.SIGUSR2)
    processes.append(await scene.balancer.successor())
    await served(await scene.connect(tls=client_context(OLD)))
    assert await asyncio.to_thread(scene.balancer.wait) == 0
    await before.gone()


async def test_draining_waits_for_answers_and_not_for_handshakes(play: Play, tmp_path: Path) -> None:
    pair = write_pair(tmp_path, OLD, "localhost")
    scene = await play(config(*pair).replace("timeout: 2s", "timeout: 10s"))
    half_open = await scene.connect()
    await half_open.send(b"\x16\x03\x01\x02\x00\x01")
    client = await scene.connect(tls=client_context(OLD))
    await client.send(GET)
    backend = await scene.backend.accept()
    await backend.request()
    scene.balancer.send(signal.SIGTERM)
    await eventually(lambda: "draining" in scene.balancer.said(), "the end")
    await half_open.gone()
    await backend.send(OK)
    response = await client.response()
    assert (response.status, response.all("connection")) == (200, ["close"])
    assert await client.ended() == "fin"
    assert await asyncio.to_thread(scene.balancer.wait, 5) == 0


async def test_handshakes_count_for_the_door(play: Play, tmp_path: Path) -> None:
    pair = write_pair(tmp_path, OLD, "localhost")
    scene = await play("max_connections: 8\n" + config(*pair))
    scene.backend.serve(OK)
    for _ in range(12):
        await scene.connect()
    await served(await scene.connect(tls=client_context(OLD)))
    assert scene.balancer.metric("lb_client_connections") <= 8


async def test_expired_certificates_are_served_with_a_warning(play: Play, tmp_path: Path) -> None:
    path = self_signed(tmp_path, "old.example", end=datetime.datetime(2021, 1, 1))
    scene = await play(config(str(path), str(path)))
    assert "has expired" in scene.balancer.said()
    assert (await scene.connect(tls=client_context())) is not None


def test_lb_check_tells_the_place(tmp_path: Path) -> None:
    cert, _ = write_pair(tmp_path, OLD, "one")
    _, key = write_pair(tmp_path, OLD, "two")
    file = tmp_path / "lb.yaml"
    file.write_text(config(cert, key).replace("$a", "127.0.0.1:1"))
    done = run("check", "-c", file)
    column = file.read_text().splitlines()[1].index(key) + 1
    assert done.returncode == 2
    words = f"{key} isn't the key of the certificate in {cert}"
    assert done.stdout + done.stderr == f"{file}:2:{column}: listeners[0].tls.certificates[0].key: {words}\n"
