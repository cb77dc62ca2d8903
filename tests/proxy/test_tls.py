"""TLS with clients, as OpenSSL's own client and Python's see it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from websockets.asyncio.client import connect as ws_connect
from websockets.asyncio.server import ServerConnection, serve

from lb.core.x509 import read_certificate
from tests.certificates import client_context, write_ca, write_pair
from tests.e2e.process import eventually
from tests.e2e.scene import Scene, Stage, set_up
from tests.e2e.wire import GET, OK, Wire, answer, get, head, post
from tests.tools import need

CONFIG = """
access_log: {path: LOG}
admin: {bind: 127.0.0.1:0}
trusted_proxies: [127.0.0.1]
listeners:
  - {bind: 127.0.0.1:0, tls: {certificates: [FIRST, RSA, SECOND]}, timeouts: {handshake: 1s}}
  - {bind: 127.0.0.1:0, tls: {certificates: [FIRST], min_version: "1.3", strict_sni: true}}
  - {bind: 127.0.0.1:0, tls: {certificates: [FIRST], client_ca: CA}}
  - {bind: 127.0.0.1:0, tls: {certificates: [FIRST], client_ca: CA, client_auth: optional}}
  - {bind: 127.0.0.1:0}
  - {bind: 127.0.0.1:0, tls: {certificates: [FIRST]}, limits: {handshakes: 4}}
  - {bind: 127.0.0.1:0, tls: {certificates: [FIRST]}}
pools: {greeter: {backends: [$a], retries: off, outlier_detection: off}}
"""
DEFAULT, STRICT, REQUIRED, OPTIONAL, PLAIN, CROWDED, PATIENT = range(7)

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()
Place = Callable[[Scene, int], int]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def stage(directory: Path) -> Iterator[Stage]:
    pairs = {
        "FIRST": write_pair(directory, AUTHORITY, "localhost", "localhost", "127.0.0.1"),
        "RSA": write_pair(directory, AUTHORITY, "rsa", "localhost", "127.0.0.1", rsa=True),
        "SECOND": write_pair(directory, AUTHORITY, "b.example", "b.example", "*.c.example"),
    }
    text = CONFIG.replace("CA", write_ca(directory, AUTHORITY)).replace("LOG", str(directory / "log"))
    for name, (cert, key) in pairs.items():
        text = text.replace(name, f"{{cert: {cert}, key: {key}}}")
    (directory / "balancer").mkdir()
    with set_up(directory / "balancer", text) as stage:
        yield stage


def port(scene: Scene, listener: int) -> int:
    return int(scene.balancer.addresses[listener].rpartition(":")[2])


def trusting(
    authority: trustme.CA | None = AUTHORITY, client: trustme.LeafCert | None = None
) -> ssl.SSLContext:
    context = client_context(authority)
    if client is not None:
        client.configure_cert(context)
    return context


async def openssl(scene: Scene, *options: str, said: bytes = b"", listener: int = DEFAULT) -> str:
    """What `openssl s_client` prints, both outputs. It is told what is `said`, line by line."""
    program = await asyncio.create_subprocess_exec(
        need("openssl"), "s_client", "-connect", f"127.0.0.1:{port(scene, listener)}", *options,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert program.stdin is not None
    async with asyncio.timeout(20):
        for line in said.splitlines(keepends=True):
            program.stdin.write(line)
            await program.stdin.drain()
            await asyncio.sleep(0.1)
        out, _ = await program.communicate(b"")
    return out.decode("latin-1")


async def shown(scene: Scene, *options: str, listener: int = DEFAULT) -> str:
    """The names of the certificate that is shown to `openssl s_client`."""
    out = await openssl(scene, *options, listener=listener)
    pem = out[out.index("-----BEGIN CERT") : out.index("-----END CERT")] + "-----END CERTIFICATE-----\n"
    return " ".join(f"DNS:{name}" for name in read_certificate(ssl.PEM_cert_to_DER_cert(pem)).names)


# --- versions, ciphers, what is off ---


async def test_requests_pass_and_the_backend_learns_of_https(scene: Scene) -> None:
    client = await scene.connect(tls=trusting())
    await client.send(GET)
    backend = await scene.backend.accept()
    request = await backend.request()
    assert request.all("x-forwarded-proto") == ["https"]
    assert request.all("x-forwarded-for") == ["127.0.0.1"]
    await backend.send(OK)
    assert (await client.response()).body == b"ok"
    await client.send(GET)  # over the same connections
    assert (await backend.request()).all("x-forwarded-proto") == ["https"]
    await backend.send(OK)
    assert (await client.response()).body == b"ok"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_todays_versions_are_spoken(scene: Scene, version: str) -> None:
    scene.backend.serve(OK)
    out = await openssl(scene, f"-tls{version.replace('.', '_')}", "-ign_eof", said=head_of_close())
    assert f"New, TLSv{version}, Cipher is" in out
    assert "HTTP/1.1 200 OK" in out


def head_of_close() -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
async def test_old_versions_are_refused(scene: Scene, version: str) -> None:
    out = await openssl(scene, version, "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in out
    assert "alert protocol version" in out


async def test_the_least_version_may_be_1_3(scene: Scene) -> None:
    out = await openssl(scene, "-tls1_2", "-servername", "localhost", listener=STRICT)
    assert "alert protocol version" in out


@pytest.mark.parametrize(
    "cipher",
    ["AES128-SHA",
     "AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "DHE-RSA-AES128-GCM-SHA256",
     "AECDH-AES128-SHA", "NULL-SHA", "PSK-AES128-GCM-SHA256"],
)  # fmt: skip
async def test_ciphers_without_forward_secrecy_or_authentication_are_refused(
    scene: Scene, cipher: str
) -> None:
    out = await openssl(scene, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert "Cipher is (NONE)" in out
    assert "handshake failure" in out or "no cipher" in out


@pytest.mark.parametrize(
    "cipher", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"]
)
async def test_both_kinds_of_keys_serve_one_name(scene: Scene, cipher: str) -> None:
    assert f"Cipher is {cipher}" in await openssl(scene, "-tls1_2", "-cipher", cipher)


async def test_clients_can_not_renegotiate_and_nothing_is_compressed(scene: Scene) -> None:
    out = await openssl(scene, "-tls1_2", said=b"R\n")
    assert "RENEGOTIATING" in out
    assert "no renegotiation" in out
    assert "Compression: NONE" in out
    assert "Secure Renegotiation IS supported" in out


async def test_alpn_knows_http_1_1_alone(scene: Scene) -> None:
    assert "ALPN protocol: http/1.1" in await openssl(scene, "-alpn", "h2,http/1.1")
    assert "No ALPN negotiated" in await openssl(scene)


async def test_sessions_are_resumed(scene: Scene, tmp_path: Path) -> None:
    for version in ("-tls1_2", "-tls1_3"):
        session = str(tmp_path / version)
        said = {"-ign_eof": "", "-sess_out": session}
        scene.backend.serve(OK)
        first = await openssl(
            scene, version, *[each for pair in said.items() for each in pair if each], said=head_of_close()
        )
        again = await openssl(scene, version, "-ign_eof", "-sess_in", session, said=head_of_close())
        assert "New, TLS" in first
        assert "Reused, TLS" in again, again
        assert "HTTP/1.1 200 OK" in again


# --- which certificate ---


async def test_the_server_name_chooses_the_certificate(scene: Scene) -> None:
    assert "DNS:localhost" in await shown(scene, "-servername", "localhost")
    assert "DNS:b.example" in await shown(scene, "-servername", "b.example")
    assert "DNS:b.example" in await shown(scene, "-servername", "B.Example")
    assert "DNS:b.example" in await shown(scene, "-servername", "www.c.example")
    for other in ("c.example", "x.www.c.example", "x.b.example", "nobody.example"):
        assert "DNS:localhost" in await shown(scene, "-servername", other), other
    assert "DNS:localhost" in await shown(scene, "-noservername")


async def test_a_strict_listener_refuses_other_names(scene: Scene) -> None:
    assert "DNS:localhost" in await shown(scene, "-servername", "localhost", listener=STRICT)
    for options in (("-servername", "nobody.example"), ("-noservername",)):
        assert "unrecognized name" in await openssl(scene, *options, listener=STRICT)


# --- certificates of clients ---

ALICE = AUTHORITY.issue_cert("alice@a.example", common_name="Alice, Ünï #1", organization_name="A")
MALLORY = STRANGER.issue_cert("mallory@a.example", common_name="Mallory")
SPOOFED = (
    "Client-Cert: :AAAA:",
    "client_cert: :AAAA:",
    "Client-Cert-Chain: :AAAA:",
    "X-Client-Cert-Subject: CN=root",
    "X_Client_Cert_Subject: CN=root",
    "x-client_cert-subject: CN=root",
)


async def told(scene: Scene, client: Wire, *fields: str) -> dict[str, list[str]]:
    """What the backend is told of a client's certificate, under any spelling."""
    await client.send(get("/", *fields))
    backend = await scene.backend.accept()
    request = await backend.request()
    await backend.send(answer(b"ok", "Connection: close"))
    assert (await client.response()).body == b"ok"
    names = {name.lower() for name, _ in request.headers if "cert" in name.lower()}
    return {name: request.all(name) for name in names}


async def test_the_verified_subject_is_passed_on_and_a_spoofed_one_is_not(scene: Scene) -> None:
    der = ssl.PEM_cert_to_DER_cert(ALICE.cert_chain_pems[0].bytes().decode())
    for listener in (REQUIRED, OPTIONAL):
        for fields in ((), SPOOFED, ("Via: 1.1 other", *SPOOFED)):
            client = await scene.connect(port(scene, listener), trusting(client=ALICE))
            found = await told(scene, client, *fields)
            assert found.keys() == {"client-cert", "x-client-cert-subject"}
            (value,), (subject,) = found["client-cert"], found["x-client-cert-subject"]
            assert value[0] == value[-1] == ":"
            assert base64.b64decode(value.strip(":"), validate=True) == der
            assert re.fullmatch(r"CN=Alice\\, \\C3\\9Cn\\C3\\AF #1,OU=[^,]+,O=A", subject), subject


async def test_whoever_shows_no_certificate_is_told_nothing_of(scene: Scene) -> None:
    for listener, tls in ((PLAIN, None), (DEFAULT, trusting()), (OPTIONAL, trusting())):
        client = await scene.connect(port(scene, listener), tls)  # from a trusted proxy's address, too
        assert await told(scene, client, *SPOOFED) == {}


@pytest.mark.parametrize(("listener", "client"), [(REQUIRED, None), (REQUIRED, MALLORY), (OPTIONAL, MALLORY)])
async def test_a_client_that_is_not_certified_is_refused(
    scene: Scene, listener: int, client: trustme.LeafCert | None
) -> None:
    refused = scene.balancer.metric("lb_tls_handshakes_total", result="failure")

    async def ask() -> None:
        wire = await scene.connect(port(scene, listener), trusting(client=client))
        await wire.send(GET)  # in TLS 1.3 the client only then learns of it
        await wire.response()

    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        await ask()
    assert scene.balancer.metric("lb_tls_handshakes_total", result="failure") == refused + 1
    assert not scene.backend.connections


# --- bodies, ends, cuts ---


async def test_large_bodies_pass_both_ways(scene: Scene) -> None:
    body = bytes(range(256)) * (8 << 12)  # 8 MiB
    client = await scene.connect(tls=trusting())
    client.push(post(body))
    backend = await scene.backend.accept()
    async with asyncio.timeout(20):
        assert (await backend.request()).body == body
        backend.push(answer(body))
        assert (await client.response(patience=20)).body == body


async def test_a_slow_reader_holds_the_backend(scene: Scene) -> None:
    client = await scene.connect(tls=trusting())
    await client.send(GET)
    backend = await scene.backend.accept()
    await backend.request()
    client.stop_reading()
    size = 64 << 20
    await backend.send(head("HTTP/1.1 200 OK", f"Content-Length: {size}"))
    sent = [0]
    pouring = asyncio.ensure_future(backend.pour(size, 20.0, sent))
    await asyncio.sleep(1)
    assert sent[0] < size, "nothing was held back"
    client.go_on_reading()
    await client.until(b"\r\n\r\n")
    assert await client.count(size) == size
    assert await pouring == size


def talk(place: int, request: bytes, version: ssl.TLSVersion) -> tuple[bytes, str]:
    """All that comes back, and how it ended: `goodbye` is a close_notify."""
    context = trusting()
    context.maximum_version = version
    raw = socket.create_connection(("127.0.0.1", place), 10)
    with raw, context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False) as tls:
        tls.sendall(request)
        came = b""
        try:
            while data := tls.recv(65536):
                came += data
        except ssl.SSLEOFError:
            return came, "cut"
        except ConnectionResetError:
            return came, "reset"
        return came, "goodbye"


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
async def test_the_last_response_ends_with_a_goodbye(scene: Scene, version: ssl.TLSVersion) -> None:
    scene.backend.serve(answer(b"x" * 100_000))
    came, end = await asyncio.to_thread(talk, port(scene, DEFAULT), head_of_close(), version)
    assert came.endswith(b"\r\n\r\n" + b"x" * 100_000)
    assert end == "goodbye"
    came, end = await asyncio.to_thread(
        talk, port(scene, DEFAULT), b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", version
    )
    assert (came[-3:], end) == (b"xxx", "goodbye")


@VERSIONS
@pytest.mark.parametrize("protocol", ["1.0", "1.1"])
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_a_cut_response_never_looks_complete(
    scene: Scene, version: ssl.TLSVersion, protocol: str, framing: str
) -> None:
    async def cut(wire: Wire) -> None:
        await wire.request()
        await wire.send(
            head("HTTP/1.1 200 OK", framing), b"5\r\nhello\r\n" if "chunked" in framing else b"hello"
        )
        await asyncio.sleep(0.1)
        wire.reset()

    scene.backend.script = cut
    request = f"GET / HTTP/{protocol}\r\nHost: a.example\r\n\r\n".encode()
    came, end = await asyncio.to_thread(talk, port(scene, DEFAULT), request, version)
    assert b"200 OK" in came
    assert end in ("cut", "reset")


async def test_a_refused_upload_is_answered_to_the_end(scene: Scene) -> None:
    client = await scene.connect(tls=trusting())
    await client.send(head("POST / HTTP/1.1", "Host: a.example", "Content-Length: 10000000"), bytes(100_000))
    backend = await scene.backend.accept()
    await backend.until(b"\r\n\r\n")
    await backend.send(answer(b"too much", "Connection: close", status="413 Too Large"))
    await client.pour(1_000_000, 2.0)
    response = await client.response("POST")
    assert (response.status, response.body) == (413, b"too much")


class HalfClosing:
    """A TLS client in memory, which says goodbye and then reads on, as few libraries can."""

    def __init__(self, place: int, version: ssl.TLSVersion) -> None:
        context = trusting()
        context.maximum_version = version
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self.raw = socket.create_connection(("127.0.0.1", place), 10)

    def flush(self, piece: int = 0) -> None:
        data = self._out.read()
        for start in range(0, len(data), piece or len(data) or 1):
            self.raw.sendall(data[start : start + (piece or len(data))])

    def fill(self) -> bool:
        data = self.raw.recv(65536)
        self._in.write(data)
        return bool(data)

    def shake_hands(self, piece: int = 0) -> None:
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush(piece)
                assert self.fill()

    def read_all(self) -> bytes:
        came = b""
        while True:
            try:
                data = self.tls.read(65536)
            except ssl.SSLWantReadError:
                if not self.fill():
                    return came
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return came
            if not data:
                return came
            came += data


@VERSIONS
async def test_a_client_may_end_its_half_and_wait_for_its_answer(
    scene: Scene, version: ssl.TLSVersion
) -> None:
    def ask() -> bytes:
        client = HalfClosing(port(scene, DEFAULT), version)
        with client.raw:
            client.shake_hands()
            client.tls.write(GET)
            client.flush()
            client.raw.shutdown(socket.SHUT_WR)
            return client.read_all()

    asking = asyncio.ensure_future(asyncio.to_thread(ask))
    backend = await scene.backend.accept()
    await backend.request()
    await asyncio.sleep(0.6)  # long enough to be asked twice whether it is still there
    await backend.send(OK)
    async with asyncio.timeout(5):
        assert (await asking).endswith(b"\r\n\r\nok")


@VERSIONS
async def test_handshake_and_request_may_come_in_any_pieces(scene: Scene, version: ssl.TLSVersion) -> None:
    scene.backend.serve(OK)

    def ask(piece: int) -> bytes:
        client = HalfClosing(port(scene, DEFAULT), version)
        with client.raw:
            client.shake_hands(piece)  # its last words are not flushed yet: they go with the request
            client.tls.write(head_of_close())
            client.flush(piece)
            return client.read_all()

    for piece in (0, 1, 7, 100):
        async with asyncio.timeout(20):
            assert (await asyncio.to_thread(ask, piece)).endswith(b"\r\n\r\nok"), piece


@pytest.mark.parametrize("way", ["goodbye", "rst"])
async def test_a_client_that_leaves_ends_its_request(scene: Scene, way: str) -> None:
    client = await scene.connect(tls=trusting())
    await client.send(GET)
    backend = await scene.backend.accept()
    await backend.request()
    if way == "goodbye":
        client.close()  # asyncio then waits for ours before it ends the connection
    else:
        client.reset()
    await backend.gone()


async def test_garbage_after_the_handshake_ends_the_connection_alone(scene: Scene) -> None:
    def spoil() -> bytes:
        client = HalfClosing(port(scene, DEFAULT), ssl.TLSVersion.TLSv1_3)
        with client.raw:
            client.shake_hands()
            client.flush()
            client.raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            while client.fill():
                pass
            return b"closed"

    assert await asyncio.to_thread(spoil) == b"closed"
    scene.backend.serve(OK)
    client = await scene.connect(tls=trusting())
    await client.send(GET)
    assert (await client.response()).status == 200


# --- tunnels ---


async def test_websockets_pass(scene: Scene) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    messages = ["hello", b"\0" * (1 << 20), "ünï" * 1000]
    async with serve(echo, sock=scene.backend.listening.dup(), max_size=None):
        await scene.backend.close()
        uri = f"wss://localhost:{port(scene, DEFAULT)}/"
        async with ws_connect(uri, ssl=trusting(), max_size=None, proxy=None) as connection:
            for message in messages:
                await connection.send(message)
                async with asyncio.timeout(10):
                    assert await connection.recv() == message
        assert connection.close_code == 1000


@VERSIONS
async def test_a_tunnel_ends_one_half_at_a_time(scene: Scene, version: ssl.TLSVersion) -> None:
    def ask() -> bytes:
        client = HalfClosing(port(scene, DEFAULT), version)
        with client.raw:
            client.shake_hands()
            client.tls.write(get("/", "Connection: Upgrade", "Upgrade: chat"))
            client.flush()
            came = b""
            while b"bye" not in came:  # the backend has ended its half
                try:
                    came += client.tls.read(65536)
                except ssl.SSLWantReadError:
                    assert client.fill()
            assert client.read_all() == b""
            client.tls.write(b"last words")  # and we have not
            client.flush()
            return came

    asking = asyncio.ensure_future(asyncio.to_thread(ask))
    backend = await scene.backend.accept()
    await backend.request()
    await backend.send(
        head("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: chat"), b"bye"
    )
    backend.end()
    await backend.until(b"last words")
    assert b"101 Switching" in await asking
    await backend.gone()


# --- who never gets in ---


async def test_plain_http_is_answered_in_plain_words(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(GET)
    response = await client.response()
    assert (response.status, b"https" in response.body) == (400, True)
    assert await client.ended() in ("fin", "rst")
    other = await scene.connect()
    await other.send(b"\x00\x01\x02")
    await other.ended()


async def test_who_takes_too_long_is_closed(scene: Scene) -> None:
    before = scene.balancer.metric("lb_tls_handshakes_total", result="timeout")
    silent, halting = await scene.connect(), await scene.connect()
    await halting.send(b"\x16\x03\x01\x02\x00\x01")
    for client in (silent, halting):
        await client.ended()
    assert scene.balancer.metric("lb_tls_handshakes_total", result="timeout") == before + 2


async def test_half_open_handshakes_hinder_nobody(scene: Scene) -> None:
    scene.backend.serve(OK)
    place = port(scene, PATIENT)
    for number in range(200):
        client = await scene.connect(place)
        if number % 2:
            await client.send(b"\x16\x03\x01\x02\x00\x01\x00")
    await eventually(lambda: scene.balancer.metric("lb_client_connections") >= 200, "all of them")
    for _ in range(5):
        client = await scene.connect(place, trusting())
        await client.send(GET)
        assert (await client.response()).status == 200


async def test_beyond_the_limit_the_oldest_handshake_makes_room(scene: Scene) -> None:
    scene.backend.serve(OK)
    place = port(scene, CROWDED)
    halting = [await scene.connect(place) for _ in range(6)]
    for each in halting[:2]:
        await each.ended()
    for _ in range(3):  # each makes its own
        client = await scene.connect(place, trusting())
        await client.send(GET)
        assert (await client.response()).status == 200
    assert await halting[-1].quiet(0.1)
    name = scene.balancer.addresses[CROWDED]
    crowded_out = scene.balancer.metric("lb_tls_handshakes_total", listener=name, result="crowded_out")
    assert 3 <= crowded_out <= 5


# --- what is told ---


async def test_metrics_and_log_tell_of_it(scene: Scene, directory: Path) -> None:
    scene.backend.serve(OK)
    for place, tls in ((DEFAULT, trusting()), (PLAIN, None)):
        client = await scene.connect(port(scene, place), tls)
        await client.send(get(f"/told/{place}", "Connection: close"))
        assert (await client.response()).status == 200
    log = directory / "log"
    await eventually(lambda: log.read_text().count("/told/") == 2, "the lines")
    lines = [json.loads(line) for line in log.read_text().splitlines() if "/told/" in line]
    assert [line["tls"] for line in lines] == ["TLSv1.3", None]
    name = scene.balancer.addresses[DEFAULT]
    assert scene.balancer.metric("lb_tls_handshakes_total", listener=name, result="success") >= 1
    for cert in ("localhost", "b.example"):
        # trustme's end of time, in the year 3000
        labels = f'listener="{name}",name="{cert}"'
        expiry = f"lb_tls_certificate_expiry_timestamp_seconds{{{labels}}} 32503680000.0"
        assert expiry in scene.balancer.ask("/metrics")[1].splitlines()
