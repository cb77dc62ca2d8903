"""Backends over TLS: who is believed, what a failure says, and that all else is as without it."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from tests.e2e.conftest import Play
from tests.e2e.process import Balancer, eventually, run
from tests.e2e.scene import Scene
from tests.e2e.wire import GET, OK, Wire, answer, connect, get, head, post
from tests.proxy.certificates import Certificates

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def config(tls: str, more: str = "", top: str = "", connect: str = "10s") -> str:
    pool = (
        f"backends: [$a], tls: {tls}, retries: off, outlier_detection: off, timeouts: {{connect: {connect}}}"
    )
    return f"access_log: off\npools: {{greeter: {{{pool}{more}}}}}\n{top}"


async def over_tls(play: Play, certificates: Certificates, more: str = "", top: str = "") -> Scene:
    """A backend that is reached by TLS, and has a good certificate."""
    scene = await play(config(f"{{ca: {certificates.ca}}}", more, top))
    await scene.backend.speak(certificates.server())
    return scene


def failed(balancer: Balancer, name: str) -> float:
    return balancer.metric("lb_backend_failures_total", failure=name)


async def test_requests_go_over_tls_and_connections_are_kept(play: Play, certificates: Certificates) -> None:
    scene = await play(config(f"{{ca: {certificates.ca}, server_name: localhost}}"))
    asked: list[str | None] = []
    context = certificates.server()
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = lambda _, name, __: asked.append(name)
    await scene.backend.speak(context)
    client = await scene.connect()
    await client.send(post(b"x" * 3_000_000))
    backend = await scene.backend.accept()
    request = await backend.request()
    assert (request.body, request.get("x-forwarded-proto")) == (b"x" * 3_000_000, "http")
    await backend.send(answer(b"y" * 3_000_000))
    assert (await client.response()).body == b"y" * 3_000_000
    for _ in range(3):
        await client.send(GET)
        await backend.request()
        await backend.send(OK)
        assert (await client.response()).status == 200
    assert scene.backend.connections == 1
    assert asked == ["localhost"]
    tls: ssl.SSLObject = backend.info("ssl_object")
    assert (tls.version(), tls.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")


async def test_a_session_is_taken_up_again(play: Play, certificates: Certificates) -> None:
    scene = await over_tls(play, certificates, ", keepalive: off")
    resumed = []
    for _ in range(3):
        client, backend = await scene.meet()
        resumed.append(backend.info("ssl_object").session_reused)
        await backend.send(OK)
        assert (await client.response()).status == 200
    assert resumed == [False, True, True]


def expired(its: Certificates) -> ssl.SSLContext:
    return its.server(its.issue(not_before=LONG_AGO, not_after=LONG_AGO + timedelta(days=9)))


def not_yet(its: Certificates) -> ssl.SSLContext:
    now = datetime.now(UTC)
    return its.server(its.issue(not_before=now + timedelta(days=9), not_after=now + timedelta(days=99)))


def of_another_name(its: Certificates) -> ssl.SSLContext:
    return its.server(its.issue("other.test", "192.0.2.1"))


def of_another_ca(its: Certificates) -> ssl.SSLContext:
    return its.server(its.issue(by=trustme.CA()))


def without_tls(its: Certificates) -> None:
    return None


BROKEN: list[tuple[Callable[[Certificates], ssl.SSLContext | None], str]] = [
    (expired, "its certificate has expired"),
    (not_yet, "its certificate is not valid yet"),
    (of_another_name, "its certificate is for another name: IP address mismatch"),
    (of_another_ca, "its certificate is by a CA that isn't trusted"),
    (without_tls, "what answers there is not TLS"),
]


@pytest.mark.parametrize(("server", "words"), BROKEN, ids=lambda each: getattr(each, "__name__", ""))
async def test_nobody_is_believed_without_proof(
    play: Play,
    certificates: Certificates,
    server: Callable[[Certificates], ssl.SSLContext | None],
    words: str,
) -> None:
    tls = f"{{ca: {certificates.ca}, min_version: '1.3'}}"
    scene = await play(
        f"""
access_log: off
routes: [{{pool: greeter}}]
pools:
  greeter: {{backends: [$a], tls: {tls}, retries: off, outlier_detection: off}}
  probed: {{backends: [$a], tls: {tls}, health_check: {{interval: 100ms, timeout: 5s}}}}
"""
    )
    await scene.backend.speak(server(certificates))

    async def say_something(wire: Wire) -> None:
        await wire.send(answer(b"which is no TLS"))
        await wire.gone()

    scene.backend.script = say_something
    for _ in range(3):
        response = await scene.ask(get("/", "Accept: application/json"))
        assert response.status == 502
        assert b"tls_failed" in response.body
        assert b"127.0.0.1" not in response.body
    assert failed(scene.balancer, "tls_failed") == 3
    said = scene.balancer.said()
    assert said.count(f"pool greeter: backend {scene.backend.address}: no TLS connection: {words}") == 1, said
    probe = scene.balancer.api("/api/pools/probed")["backends"][0]["last_probe"]
    assert (probe["good"], probe["reason"].partition(words)[1]) == (False, words)
    await asyncio.to_thread(scene.balancer.stop)  # no probe is to be on its way when the backend goes


async def test_a_backend_that_hangs_up_in_the_handshake(play: Play, certificates: Certificates) -> None:
    scene = await play(config(f"{{ca: {certificates.ca}}}"))

    async def hang_up(wire: Wire) -> None:
        await wire.read()

    scene.backend.script = hang_up
    assert (await scene.ask(GET)).status == 502
    assert failed(scene.balancer, "tls_failed") == 1
    assert "closed the connection in the midst of the handshake" in scene.balancer.said()


async def test_a_handshake_has_the_time_of_a_connect(play: Play, certificates: Certificates) -> None:
    scene = await play(config(f"{{ca: {certificates.ca}}}", connect="300ms"))
    client = await scene.connect()
    await client.send(GET)
    backend = await scene.backend.accept()
    assert await backend.read()  # a ClientHello, and no answer
    response = await client.response()
    assert response.status == 504
    assert b"connect_timeout" in response.body
    assert await backend.gone()


async def test_where_there_is_nobody_it_is_no_fault_of_tls(play: Play, certificates: Certificates) -> None:
    scene = await play(config(f"{{ca: {certificates.ca}}}"))
    await scene.backend.close()
    for each in scene.backends.values():
        each.listening.close()
    assert (await scene.ask(GET)).status == 502
    assert (failed(scene.balancer, "connect_failed"), failed(scene.balancer, "tls_failed")) == (1, 0)


async def test_another_backend_gets_what_could_not_be_sent(play: Play, certificates: Certificates) -> None:
    scene = await play(
        f"""
access_log: off
pools:
  greeter:
    balancer: round_robin
    backends: [$a, $b]
    tls: {{ca: {certificates.ca}}}
    retries: {{attempts: 1, min_per_second: 100}}
    outlier_detection: off
"""
    )
    bad, good = scene.backends["a"], scene.backends["b"]
    await bad.speak(of_another_ca(certificates))
    await good.speak(certificates.server())
    good.serve(answer(b"done"))
    for _ in range(4):
        response = await scene.ask(post(b"not idempotent"))
        assert (response.status, response.body) == (200, b"done")
    assert failed(scene.balancer, "tls_failed") == 2


async def test_any_certificate_is_taken_where_it_is_asked_for_loudly(
    play: Play, certificates: Certificates
) -> None:
    scene = await play(config("{insecure_skip_verify: true}"))
    await scene.backend.speak(expired(certificates))
    scene.backend.serve(OK)
    assert (await scene.ask(GET)).status == 200
    assert "pools.greeter.tls: insecure_skip_verify is on" in scene.balancer.said()
    checked = run("check", "-c", scene.balancer.config)
    assert checked.returncode == 0
    assert "warning: pools.greeter.tls: insecure_skip_verify is on" in checked.stderr


async def test_a_backend_that_wants_a_certificate_gets_ours(play: Play, certificates: Certificates) -> None:
    cert, key = certificates.write("client", certificates.issue("lb.internal"))
    scene = await play(config(f"{{ca: {certificates.ca}, cert: {cert}, key: {key}}}"))
    await scene.backend.speak(certificates.server(ask=ssl.CERT_REQUIRED))
    scene.backend.serve(OK)
    assert (await scene.ask(GET)).status == 200
    assert scene.backend.wires[0].info("peercert")["subjectAltName"] == (("DNS", "lb.internal"),)


# --- endings ---


async def test_a_response_that_is_cut_never_looks_complete(play: Play, certificates: Certificates) -> None:
    scene = await over_tls(play, certificates)
    for in_order in (True, False):
        client, backend = await scene.meet()
        await backend.send(head("HTTP/1.1 200 OK", "Connection: close") + b"until the end")
        if in_order:
            backend.close()  # with a close_notify
        else:
            backend.info("socket").shutdown(socket.SHUT_RDWR)  # a FIN out of nowhere
        response = await client.rest()
        assert response.complete == in_order
    assert failed(scene.balancer, "response_cut") == 1


async def test_a_stale_connection_costs_nobody_anything(play: Play, certificates: Certificates) -> None:
    scene = await over_tls(play, certificates)
    client, first = await scene.acquainted()
    await client.send(GET)
    await first.request()
    first.reset()  # with the request, as if it had been closed just then
    second = await scene.backend.accept()
    await second.request()
    await second.send(OK)
    assert (await client.response()).status == 200


async def test_an_idle_connection_is_closed_in_order(play: Play, certificates: Certificates) -> None:
    scene = await over_tls(play, certificates, ", keepalive: {idle: 300ms}")
    _, backend = await scene.acquainted()
    assert await backend.ended() == "fin"


# --- back-pressure and tunnels ---


async def test_a_backend_that_reads_slowly_holds_the_client_back(
    play: Play, certificates: Certificates
) -> None:
    scene = await over_tls(play, certificates)
    size = 64 << 20
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a.example", f"Content-Length: {size}"))
    backend = await scene.backend.accept()
    await backend.until(b"\r\n\r\n")
    backend.stop_reading()
    taken = await client.pour(size, 1.0)
    assert taken < size // 2
    backend.go_on_reading()
    rest = asyncio.ensure_future(client.pour(size - taken, 30))
    assert await backend.count(size) >= size
    await rest
    await backend.send(OK)
    assert (await client.response()).status == 200


async def test_a_client_that_reads_slowly_holds_the_backend_back(
    play: Play, certificates: Certificates
) -> None:
    scene = await over_tls(play, certificates)
    size = 64 << 20
    client, backend = await scene.meet()
    client.stop_reading()
    await backend.send(head("HTTP/1.1 200 OK", f"Content-Length: {size}"))
    taken = await backend.pour(size, 1.0)
    assert taken < size // 2
    client.go_on_reading()
    rest = asyncio.ensure_future(backend.pour(size - taken, 30))
    assert await client.count(size) >= size
    await rest


OFFER = get("/", "Connection: Upgrade", "Upgrade: echo")
SWITCH = head("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: echo")


async def tunnel(scene: Scene) -> tuple[Wire, Wire]:
    client, backend = await scene.meet(OFFER)
    await backend.send(SWITCH)
    await client.until(b"\r\n\r\n")
    return client, backend


async def test_a_tunnel_over_tls(play: Play, certificates: Certificates) -> None:
    scene = await over_tls(play, certificates)
    client, backend = await tunnel(scene)
    for one, other in ((client, backend), (backend, client)):
        pouring = asyncio.ensure_future(one.pour(16 << 20, 30))
        assert await other.count(16 << 20) >= 16 << 20
        await pouring
    backend.close()
    assert await client.ended() == "fin"


async def test_a_client_that_ends_its_half_still_gets_what_is_under_way(
    play: Play, certificates: Certificates
) -> None:
    """The backend can't be told, so it is waited for until nothing more comes."""
    scene = await over_tls(play, certificates)
    client, backend = await tunnel(scene)
    await client.send(b"last words")
    client.end()
    await backend.until(b"last words")
    await backend.send(b"so long")
    await client.until(b"so long")
    assert await backend.ended() == "fin"
    assert await client.ended() == "fin"
    assert "Traceback" not in scene.balancer.said()


# --- files that change ---


async def ask_over_new(scene: Scene) -> int:
    return (await scene.ask(GET)).status


async def test_files_that_change_hold_for_new_connections(play: Play, certificates: Certificates) -> None:
    scene = await over_tls(play, certificates, ", keepalive: off")
    scene.backend.serve(OK)
    assert await ask_over_new(scene) == 200

    another = trustme.CA()
    await scene.backend.speak(certificates.server(certificates.issue(by=another)))
    certificates.ca.write_text("-----BEGIN CERTIFICATE-----\nhalf of")
    await asyncio.sleep(1.1)
    assert await ask_over_new(scene) == 502  # by the CA as it was
    assert "TLS goes on with the files as they were" in scene.balancer.said()
    assert f"ca {certificates.ca} can't be used" in scene.balancer.said()

    another.cert_pem.write_to_path(str(certificates.ca))
    await asyncio.sleep(1.1)
    assert await ask_over_new(scene) == 200
    assert "the files for TLS have changed" in scene.balancer.said()


async def test_a_reload_looks_at_the_files_too(play: Play, certificates: Certificates) -> None:
    scene = await over_tls(play, certificates)
    scene.backend.serve(OK)
    assert await ask_over_new(scene) == 200
    pem = certificates.ca.read_text()
    certificates.ca.write_text("nothing")
    scene.balancer.send(signal.SIGHUP)
    await eventually(lambda: "not reloaded: pool greeter: tls: ca" in scene.balancer.said(), "the refusal")
    assert await ask_over_new(scene) == 200
    certificates.ca.write_text(pem)
    assert scene.balancer.ask("/api/reload", "POST")[0] == 200


async def test_connections_of_the_old_way_serve_nobody_after_a_reload(
    play: Play, certificates: Certificates
) -> None:
    scene = await play(config("{insecure_skip_verify: true}"))
    await scene.backend.speak(of_another_ca(certificates))
    scene.backend.serve(OK)
    assert await ask_over_new(scene) == 200
    text = scene.balancer.config.read_text()
    scene.balancer.config.write_text(text.replace("insecure_skip_verify: true", f"ca: {certificates.ca}"))
    status, said = scene.balancer.ask("/api/reload", "POST")
    assert (status, "pools.greeter.tls" in said) == (200, True)
    assert await ask_over_new(scene) == 502
    scene.balancer.config.write_text(text.replace("tls: {insecure_skip_verify: true}", "tls: off"))
    assert scene.balancer.ask("/api/reload", "POST")[0] == 200
    await scene.backend.speak(None)
    assert await ask_over_new(scene) == 200


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ("{ca: /nowhere/ca.pem}", "ca /nowhere/ca.pem can't be read: no such file or directory"),
        ("{cert: CA, key: /nowhere/k}", "key /nowhere/k can't be read"),
        ("{cert: CA, key: OTHER}", "the key is another certificate's"),
        ("{ca: KEY}", "there is no certificate in it"),
    ],
)
def test_files_that_are_no_good(tmp_path: Path, certificates: Certificates, tls: str, words: str) -> None:
    _, key = certificates.write("other", certificates.issue())
    tls = tls.replace("CA", str(certificates.ca)).replace("OTHER", str(key)).replace("KEY", str(key))
    file = tmp_path / "lb.yaml"
    file.write_text(f"pools: {{greeter: {{backends: [127.0.0.1:1], tls: {tls}}}}}")
    checked = run("check", "-c", file)
    assert (checked.returncode, checked.stderr.count("warning:")) == (0, 1)
    assert words in checked.stderr
    file.write_text("listeners: [{bind: 127.0.0.1:0}]\nadmin: off\n" + file.read_text())
    served = run("serve", "-c", file)
    assert served.returncode != 0
    assert f"can't start: pool greeter: tls: {words[:3]}" in served.stderr or words in served.stderr


# --- probes and workers ---


async def test_probes_find_what_a_request_would(play: Play, certificates: Certificates) -> None:
    check = "health_check: {interval: 100ms, timeout: 5s, rise: 1, fall: 1}"
    scene = await over_tls(play, certificates, f", {check}")
    scene.backend.serve(OK)
    await eventually(lambda: scene.balancer.metric("lb_backend_up") == 1, "a good probe")
    assert await ask_over_new(scene) == 200
    await scene.backend.speak(of_another_ca(certificates))
    await eventually(lambda: scene.balancer.metric("lb_backend_up") == 0, "a bad probe")
    await asyncio.to_thread(scene.balancer.stop)


async def test_workers_speak_it_too(play: Play, certificates: Certificates) -> None:
    scene = await over_tls(play, certificates, top="workers: 2\n")
    scene.backend.serve(OK)
    for _ in range(6):
        assert await ask_over_new(scene) == 200
    client = await connect(scene.balancer.port)
    await client.send(GET)
    assert (await client.response()).status == 200
    client.close()
