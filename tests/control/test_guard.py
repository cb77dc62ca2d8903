"""Who may use the admin API, by what name, how long, and what it never tells."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lb.build import CannotStart
from lb.config import Address, ConfigError, loads
from lb.control import admin as admin_module
from lb.control import gate as gate_module
from lb.control import guard as guard_module
from lb.control.admin import AdminServer
from lb.control.gate import GATE
from lb.control.room import MOST
from lb.control.state import AdminState
from lb.proxy.sockets import Inherited, Listening
from lb.running.binding import must_be_local
from tests.control.test_admin import records, state
from tests.control.waiting import until
from tests.e2e.conftest import Play, play
from tests.e2e.process import Balancer, eventually, run, running

__all__ = ["play", "records", "state"]

POOL = "pools: {greeter: {backends: [127.0.0.1:1]}}\n"
LOCAL = "access_log: off\nlisteners: [{bind: 127.0.0.1:0}]\nadmin: {bind: 127.0.0.1:0}\n"


@pytest.fixture(scope="module")
def balancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    """One whose admin API has no token."""
    with running(tmp_path_factory.mktemp("balancer"), LOCAL + POOL) as balancer:
        yield balancer


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    """One whose admin API wants the token s3cret."""
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "token").write_text("s3cret\n")
    token = f"127.0.0.1:0, token: {{file: {directory}/token}}}}\n"
    with running(directory, LOCAL.replace("127.0.0.1:0}\n", token) + POOL) as balancer:
        yield balancer


def said(balancer: Balancer, request: bytes, patience: float = 5.0) -> bytes:
    """All that the admin server answers to these bytes on a connection of their own."""
    host, _, port = balancer.admin.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), patience) as client:
        answer = b""
        try:
            client.sendall(request)
            while more := client.recv(1 << 16):
                answer += more
        except (ConnectionError, TimeoutError):
            pass
    return answer


def asked(
    balancer: Balancer, line: str, *fields: str, host: str | None = "127.0.0.1"
) -> tuple[int, str, str]:
    """Status, head and body of the answer."""
    names = [f"Host: {host}"] if host is not None else []
    request = "".join(
        f"{each}\r\n" for each in (f"{line} HTTP/1.1", *names, *fields, "Connection: close", "")
    )
    head, _, body = said(balancer, request.encode("latin-1")).partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode("latin-1"), body.decode("utf-8", "replace")


# --- where it may listen without a token ---


@pytest.mark.parametrize(
    "bind",
    [
        "0.0.0.0:1",
        "'[::]:1'",
        "10.0.0.1:1",
        "lb.example.com:1",
        "localhost.example:1",
        "'[::ffff:10.0.0.1]:1'",
    ],
)
def test_other_machines_need_a_token(bind: str) -> None:
    with pytest.raises(ConfigError, match="can be reached from other machines, so admin needs a token"):
        loads(f"admin: {{bind: {bind}}}\n{POOL}")
    loads(f"admin: {{bind: {bind}, token: {{env: TOKEN}}}}\n{POOL}")


@pytest.mark.parametrize("bind", ["127.0.0.1:1", "127.9.8.7:1", "'[::1]:1'", "localhost:1", "LOCALHOST:1"])
def test_this_machine_needs_none(bind: str) -> None:
    loads(f"admin: {{bind: {bind}}}\n{POOL}")


def test_the_admin_server_is_no_unix_socket() -> None:
    with pytest.raises(ConfigError, match="a unix socket can't stand here"):
        loads(f"admin: {{bind: 'unix:/run/lb-admin.sock'}}\n{POOL}")


async def test_a_name_that_turns_out_to_be_no_loopback_needs_a_token() -> None:
    """As localhost may, where /etc/hosts says so, or a socket that was handed over."""
    for host, fine in (("127.0.0.1", True), ("0.0.0.0", False)):
        listening = Listening(host, 0)
        await listening.bind(Inherited())  # nobody listens yet
        try:
            if fine:
                must_be_local(Address("localhost", 9901), listening)
            else:
                with pytest.raises(
                    CannotStart, match=r"admin localhost:9901: is 0\.0\.0\.0, which other machines"
                ):
                    must_be_local(Address("localhost", 9901), listening)
        finally:
            listening.close()


# --- the token ---


def test_the_token_is_compared_in_constant_time(guarded: Balancer) -> None:
    """Whatever is wrong with it, the answer is the same, to the byte."""
    answers = set()
    for given in (
        "",
        "Bearer",
        "Bearer ",
        "Bearer s",
        "Bearer s3cre",
        "Bearer s3crets",
        "Basic s3cret",
        "s3cret",
    ):
        fields = [f"Authorization: {given}"] if given else []
        status, head, body = asked(guarded, "GET /api/pools", *fields)
        answers.add(
            (status, body, "\n".join(line for line in head.splitlines() if not line.startswith("Date:")))
        )
    assert len(answers) == 1
    assert answers.pop()[0] == 401
    assert asked(guarded, "GET /api/pools", "Authorization: Bearer s3cret")[0] == 200


def test_hmac_does_the_comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    class Asked:
        headers = {"Authorization": "Bearer s3cret"}  # noqa: RUF012
        app = {guard_module.STATE: type("State", (), {"token": "s3cret"})}  # noqa: RUF012

    monkeypatch.setattr(guard_module.hmac, "compare_digest", compare_digest)
    assert not guard_module.may_see(Asked())  # type: ignore[arg-type]
    assert compared == [(b"s3cret", b"s3cret")]


def test_two_tokens_are_none(guarded: Balancer) -> None:
    fields = ("Authorization: Bearer wrong", "Authorization: Bearer s3cret")
    assert asked(guarded, "GET /api/pools", *fields)[0] in (400, 401)


def test_everything_there_is_wants_it(guarded: Balancer) -> None:
    for line in (
        "GET /",
        "GET /metrics",
        "HEAD /metrics",
        "GET /api/config",
        "GET /api/requests",
        "POST /api/reload",
        "PATCH /api/pools/greeter/backends/127.0.0.1:1",
        "GET /nothing",
        "DELETE /",
        "GET //livez",
        "GET /livez/",
        "GET /%6civez/x",
        "OPTIONS *",
    ):
        status, head, _ = asked(guarded, line, "Content-Length: 0")
        assert status in (400, 401), line
        assert "s3cret" not in head
    assert asked(guarded, "GET /livez")[0] == 200


def test_who_has_no_token_hears_nothing_of_pools(guarded: Balancer) -> None:
    _, _, body = asked(guarded, "GET /readyz")
    assert json.loads(body).keys() == {"ready", "reasons"}
    _, _, body = asked(guarded, "GET /readyz", "Authorization: Bearer s3cret")
    assert json.loads(body)["pools"].keys() == {"greeter"}


async def test_the_token_is_read_anew_at_a_reload(play: Play, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    scene = await play(LOCAL.replace("0}\n", f"0, token: {{file: {token}}}}}\n") + POOL)
    balancer = scene.balancer

    def statuses() -> list[int]:
        return [
            asked(balancer, "GET /metrics", f"Authorization: Bearer {each}")[0]
            for each in ("first", "second")
        ]

    assert statuses() == [200, 401]
    token.write_text("second\n")
    balancer.send(signal.SIGHUP)
    await eventually(lambda: statuses() == [401, 200], "the new token")
    token.write_text("\n")
    balancer.send(signal.SIGHUP)
    await eventually(lambda: "is empty" in balancer.said(), "the complaint")
    assert statuses() == [401, 200]
    balancer.config.write_text(balancer.config.read_text())
    told = await asyncio.to_thread(
        run, "explain", "01234567-0000", "--admin", balancer.admin, "-c", balancer.config
    )
    assert "is empty" in told.stderr
    token.write_text("second\n")
    told = await asyncio.to_thread(
        run, "explain", "01234567-0000", "--admin", balancer.admin, "-c", balancer.config
    )
    assert "No request 01234567-0000 is known" in told.stderr
    for each in ("first", "second"):
        assert each not in balancer.said()


# --- names ---


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9901", 200),
        ("localhost", 200),
        ("[::1]:1", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:9901", 421),
        ("evil@localhost", 421),
        ("localhost:99999", 421),
        ("localhost:x", 421),
        ("10.0.0.1", 421),
        ("0.0.0.0", 421),
        ("2130706433", 421),
        ("", 421),
        (None, 421),
    ],
)
def test_a_page_with_a_name_of_its_own_gets_nothing(
    balancer: Balancer, host: str | None, status: int
) -> None:
    """DNS rebinding."""
    for line in ("GET /api/config", "GET /readyz", "GET /", "POST /api/reload"):
        found, _, body = asked(balancer, line, "Content-Length: 0", host=host)
        assert found == status or (host is None and found == 400), (line, body)
    if host is not None:
        assert asked(balancer, "GET /livez", "Host: 127.0.0.1", host=host)[0] in (400, 421)  # two of them


async def test_names_that_are_configured(play: Play, tmp_path: Path) -> None:
    scene = await play(LOCAL.replace("0}\n", "0, hosts: [lb.Example.com, 10.1.2.3]}\n") + POOL)
    balancer = scene.balancer
    for host in ("lb.example.com", "LB.example.com:9901", "lb.example.com.", "10.1.2.3", "localhost"):
        assert asked(balancer, "GET /readyz", host=host)[0] != 421, host
    for host in ("example.com", "x.lb.example.com", "10.1.2.4"):
        assert asked(balancer, "GET /readyz", host=host)[0] == 421, host
    (tmp_path / "token").write_text("s3cret")
    text = balancer.config.read_text().replace("hosts:", f"token: {{file: {tmp_path}/token}}, hosts:")
    balancer.config.write_text(text)
    balancer.send(signal.SIGHUP)
    await eventually(lambda: asked(balancer, "GET /api/pools")[0] == 401, "the token")
    bearer = "Authorization: Bearer s3cret"
    for host, status in (
        ("lb.example.com", 200),
        ("10.9.9.9", 200),
        ("[2001:db8::1]", 200),
        ("evil.example", 421),
    ):
        assert asked(balancer, "GET /api/pools", bearer, host=host)[0] == status


# --- pages of other sites ---


@pytest.mark.parametrize(
    "fields",
    [
        ("Origin: http://evil.example",),
        ("Origin: http://127.0.0.1:1",),
        ("Origin: null",),
        ("Origin: http://127.0.0.1@evil.example",),
        ("Sec-Fetch-Site: cross-site",),
        ("Sec-Fetch-Site: same-site",),
        ("Sec-Fetch-Site: cross-site", "Origin: http://127.0.0.1"),
    ],
)
@pytest.mark.parametrize("token", [True, False])
def test_they_change_nothing(
    balancer: Balancer, guarded: Balancer, fields: tuple[str, ...], token: bool
) -> None:
    bearer = ["Authorization: Bearer s3cret"] if token else []
    for line in ("POST /api/reload", "PATCH /api/pools/greeter/backends/127.0.0.1:1", "DELETE /api/pools"):
        status, head, body = asked(
            guarded if token else balancer, line, *bearer, *fields, "Content-Length: 0"
        )
        assert (status, json.loads(body)["error"]) == (
            403,
            "Pages of other sites may not change anything here",
        )
        assert "access-control" not in head.lower()


def test_our_own_page_may(balancer: Balancer) -> None:
    fields = ("Origin: http://127.0.0.1", "Sec-Fetch-Site: same-origin", "Content-Length: 0")
    assert asked(balancer, "POST /api/reload", *fields)[0] == 200
    assert asked(balancer, "POST /api/reload", "Sec-Fetch-Site: none", "Content-Length: 0")[0] == 200


def test_no_preflight_is_answered_well(balancer: Balancer) -> None:
    fields = ("Origin: http://evil.example", "Access-Control-Request-Method: PATCH")
    status, head, _ = asked(balancer, "OPTIONS /api/pools/greeter/backends/127.0.0.1:1", *fields)
    assert status == 405
    assert "access-control" not in head.lower()


# --- what is told ---


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /", 200),
        ("GET /livez", 200),
        ("GET /readyz", 200),
        ("GET /metrics", 200),
        ("GET /api/config", 200),
        ("GET /api/nothing", 404),
        ("DELETE /api/pools", 405),
        ("PUT /metrics", 405),
        ("TRACE /", 405),
        ("PROPFIND /", 405),
    ],
)
def test_headers_that_keep_browsers_from_harm(balancer: Balancer, line: str, status: int) -> None:
    found, head, body = asked(balancer, line)
    assert found == status
    assert "\r\nX-Content-Type-Options: nosniff" in head
    assert "frame-ancestors 'none'" in head
    assert "default-src 'none'" in head
    assert "\r\nCross-Origin-Resource-Policy: same-origin" in head
    assert "\r\nCache-Control: no-store" in head
    assert "access-control-allow" not in head.lower()
    assert "unsafe" not in head
    if status >= 400:
        assert json.loads(body)["error"]


def test_no_traceback_for_anyone(balancer: Balancer) -> None:
    """Neither in an answer nor in the log, which anybody could fill with them."""
    for request in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"PATCH /api/pools/greeter/backends/x HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX\xff\x00: a\r\n\r\n",
        b"GET /api/requests/%ff%00%0a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /api/requests?status=%ff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: \xe4\r\nConnection: close\r\n\r\n",
        b"GET /%0a HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: \xe4\r\nConnection: close\r\n\r\n",
        b"\0" * 1000,
    ):
        answer = said(balancer, request, 1.0)
        assert answer == b"" or 400 <= int(answer.split()[1]) < 500, answer[:200]
        assert b"Traceback" not in answer
    assert "Traceback" not in balancer.said()
    assert balancer.ask("/livez") == (200, "ok\n")


def test_a_client_that_leaves_in_the_middle_is_no_news(balancer: Balancer) -> None:
    host, _, port = balancer.admin.removeprefix("http://").rpartition(":")
    for _ in range(20):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert balancer.ask("/livez") == (200, "ok\n")
    assert "Traceback" not in balancer.said()


# --- time and room ---


@asynccontextmanager
async def serving(state: AdminState) -> AsyncIterator[tuple[AdminServer, int]]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = AdminServer(state, [sock])
        await server.start()
        try:
            yield server, sock.getsockname()[1]
        finally:
            await server.close()


async def test_who_holds_connections_open_keeps_nobody_out(play: Play) -> None:
    scene = await play(f"{LOCAL}pools: {{greeter: {{backends: [$a]}}}}\n")
    scene.backend.script = _always_ok
    balancer = scene.balancer
    host, _, port = balancer.admin.removeprefix("http://").rpartition(":")
    with ExitStack() as stack:
        for number in range(5 * MOST):
            client = stack.enter_context(socket.create_connection((host, int(port)), 5))
            client.sendall(
                (b"", b"GET / HTTP/1.1\r\nX: ", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")[number % 3]
            )
        files = Path(f"/proc/{balancer.process.pid}/fd")
        await eventually(lambda: len(list(files.iterdir())) < MOST + 40, "the end of most of them")
        assert await asyncio.to_thread(balancer.ask, "/livez") == (200, "ok\n")
        assert (await scene.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
        metrics = await asyncio.to_thread(balancer.metric, "lb_client_requests_total", code="200")
        assert metrics == 1


async def _always_ok(wire: Any) -> None:
    while True:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def test_those_with_a_request_under_way_stay(
    state: AdminState, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, all_here, here = asyncio.Event(), asyncio.Event(), 0

    async def slow() -> None:
        nonlocal here
        here += 1
        if here == 3:
            all_here.set()
        await gate.wait()

    state.collect = slow
    monkeypatch.setattr(admin_module, "Gate", lambda make, most: gate_module.Gate(make, lambda: 3))
    async with serving(state) as (_, port), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}"
        requests = [asyncio.create_task(session.get(f"{url}/api/pools")) for _ in range(3)]
        async with asyncio.timeout(5):
            await all_here.wait()
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{url}/livez")
        gate.set()
        for request in requests:
            assert (await request).status == 200
        assert (await session.get(f"{url}/livez")).status == 200


@pytest.mark.parametrize("beginning", [b"", b"GET /livez HTTP/1.1\r\nX: y", b"\r\n"])
async def test_who_never_finishes_a_request_goes(
    state: AdminState, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(gate_module, "FIRST", 0.2)
    monkeypatch.setattr(gate_module, "NEXT", 0.2)
    monkeypatch.setattr(gate_module, "SWEEP", 0.05)
    async with serving(state) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(beginning)
        async with asyncio.timeout(5):
            with pytest.raises((ConnectionError, EOFError)):
                await reader.readexactly(1)
        writer.transport.abort()
        # and so after a whole one
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + beginning)
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            with pytest.raises((ConnectionError, EOFError)):
                await reader.readexactly(1)
        writer.transport.abort()
        assert len(server._app[GATE]) == 0


async def test_those_who_send_slowly_keep_nobody_out(
    state: AdminState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have a request, but bring no more of it than those who have none."""
    monkeypatch.setattr(admin_module, "Gate", lambda make, most: gate_module.Gate(make, lambda: 3))
    async with serving(state) as (server, port):
        writers = []
        for number in range(7):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"PATCH /api/pools/greeter/backends/greeter-1 HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{"
            )
            writers.append(writer)
            inside, wanted = server._app[GATE]._inside, min(number + 1, 3)
            await until(
                lambda inside=inside, wanted=wanted: sum(each.sending for each in inside.values()) == wanted
            )
        async with aiohttp.ClientSession() as session:
            assert (await session.get(f"http://127.0.0.1:{port}/livez")).status == 200
        for writer in writers:
            writer.transport.abort()


async def test_a_body_must_come_in_time(state: AdminState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "BODY_WITHIN", 0.1)
    async with serving(state) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"PATCH /api/pools/greeter/backends/greeter-1 HTTP/1.1\r\nHost: localhost\r\n"
            b'Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{"weight"'
        )
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n")).split()[1] == b"408"
        writer.transport.abort()


async def test_who_takes_nothing_of_a_page_goes(state: AdminState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_module, "STALLED", 0.3)
    written = 0

    def pieces() -> Iterator[bytes]:
        nonlocal written
        for _ in range(1000):
            written += 1
            yield bytes(1 << 16)

    monkeypatch.setattr(state.metrics, "page", lambda accept: ("text/plain", pieces()))
    async with serving(state) as (server, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        gate = server._app[GATE]
        await eventually(lambda: written and len(gate) == 0, "its end")
        assert written < 1000
        writer.transport.abort()


# --- the running configuration ---


def test_the_configuration_tells_where_a_token_is_and_not_what_it_is(guarded: Balancer) -> None:
    _, _, body = asked(guarded, "GET /api/config", "Authorization: Bearer s3cret")
    assert json.loads(body)["admin"]["token"]["file"].endswith("/token")
    assert "s3cret" not in body


def test_a_body_may_wait_for_leave(balancer: Balancer) -> None:
    head = (
        b"PATCH /api/pools/greeter/backends/127.0.0.1:1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    )
    body = b'{"weight": 7}'
    head += b"Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    answer = said(balancer, head + body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["weight"] == 7
