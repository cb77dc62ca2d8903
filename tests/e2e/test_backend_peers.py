"""Servers of others as backends: over TLS, and as readers of the PROXY protocol."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.conftest import Play
from tests.e2e.process import eventually
from tests.e2e.scene import Scene
from tests.e2e.wire import GET, get, post
from tests.proxy.certificates import Certificates
from tests.tools import need

Run = Callable[..., int]


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Run]:
    """Starts a program that listens at a port, which stands as PORT in its command line; returns the port."""
    with ExitStack() as stack:

        def start(*command: str, patience: float = 15.0) -> int:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port: int = free.getsockname()[1]
            log = stack.enter_context((tmp_path / f"{Path(command[0]).name}.log").open("wb"))
            process = subprocess.Popen(
                [each.replace("PORT", str(port)) for each in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=tmp_path,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return port

        yield start


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def before(play: Play, port: int, more: str, top: str = "") -> Scene:
    """A balancer before the server, when that listens."""
    await eventually(lambda: listens(port), "the server")
    pool = f"backends: [127.0.0.1:{port}], retries: off, outlier_detection: off, timeouts: {{connect: 10s}}"
    return await play(f"access_log: off\npools: {{greeter: {{{pool}, {more}}}}}\n{top}")


def s_server(server: Run, certificates: Certificates, *more: str) -> int:
    cert, key = certificates.write("server", certificates.issue())
    return server(
        need("openssl"), "s_server", "-accept", "PORT", "-cert", str(cert), "-key", str(key),
        "-www", "-quiet", *more
    )  # fmt: skip


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_openssl(play: Play, server: Run, certificates: Certificates, version: str) -> None:
    port = s_server(server, certificates, version)
    scene = await before(play, port, f"tls: {{ca: {certificates.ca}}}")
    for _ in range(3):
        response = await scene.ask(GET)
        assert response.status == 200
        assert response.complete
        assert b"Cipher" in response.body
    assert version[-1:] in response.body.decode()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_openssl_wants_to_know_us(
    play: Play, server: Run, certificates: Certificates, version: str
) -> None:
    port = s_server(server, certificates, version, "-CAfile", str(certificates.ca), "-Verify", "1",
                    "-verify_return_error")  # fmt: skip
    cert, key = certificates.write("client", certificates.issue("lb.internal"))
    known = await before(play, port, f"tls: {{ca: {certificates.ca}, cert: {cert}, key: {key}}}")
    response = await known.ask(GET)
    assert (response.status, b"Client certificate" in response.body) == (200, True)
    unknown = await before(play, port, f"tls: {{ca: {certificates.ca}}}")
    response = await unknown.ask(get("/", "Accept: application/json"))
    assert (response.status, b"tls_failed" in response.body) == (502, True)
    assert "client certificate" in unknown.balancer.said()


async def test_openssl_speaks_only_what_is_too_old(
    play: Play, server: Run, certificates: Certificates
) -> None:
    port = s_server(server, certificates, "-tls1_2")
    scene = await before(play, port, f"tls: {{ca: {certificates.ca}, min_version: '1.3'}}")
    assert (await scene.ask(GET)).status == 502
    assert "it speaks no version of TLS that we do" in scene.balancer.said()


GO = """
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d %s %d %v", r.Proto, r.TLS.Version, r.TLS.ServerName, len(body), r.TLS.DidResume)
	})
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], TLSConfig: &tls.Config{}}
	panic(server.ListenAndServeTLS("server.pem", "server.key"))
}
"""


async def test_go(play: Play, server: Run, certificates: Certificates, tmp_path: Path) -> None:
    certificates.write("server", certificates.issue("greeter.internal"))
    (tmp_path / "main.go").write_text(GO)
    built = await asyncio.to_thread(
        subprocess.run,
        [need("go", "golang-go"), "build", "-o", "tlsserver", "main.go"],
        cwd=tmp_path,
        check=False,
    )
    assert built.returncode == 0
    port = server(str(tmp_path / "tlsserver"), "PORT")
    tls = f"tls: {{ca: {certificates.ca}, server_name: greeter.internal}}"
    scene = await before(play, port, f"{tls}, health_check: {{path: /, interval: 100ms, timeout: 5s}}")
    await eventually(lambda: scene.balancer.metric("lb_backend_up") == 1, "a good probe")
    client = await scene.connect()
    for size in (0, 5, 2_000_000):
        await client.send(post(b"x" * size))
        response = await client.response()
        assert response.status == 200
        assert response.body.decode().startswith(f"HTTP/1.1 772 greeter.internal {size} ")
    assert scene.balancer.metric("lb_backend_connections") == 1


NGINX = """
daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
events {}
http {
  access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4;
  scgi_temp_path t5;
  server {
    listen 127.0.0.1:PORT %s proxy_protocol;
    ssl_certificate server.pem; ssl_certificate_key server.key;
    location / { return 200 "$proxy_protocol_addr $proxy_protocol_port $scheme"; }
  }
}
"""
HAPROXY = """
defaults
  mode http
  timeout client 10s
  timeout connect 10s
  timeout server 10s
frontend all
  bind 127.0.0.1:PORT accept-proxy %s
  http-request return content-type text/plain lf-string "%%[src] %%[src_port] %%[ssl_fc,iif(https,http)]"
"""


def start_peer(name: str, server: Run, certificates: Certificates, directory: Path, tls: bool) -> int:
    cert, key = certificates.write("server", certificates.issue())
    if name == "nginx":
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        text = (NGINX % ("ssl" if tls else "")).replace("PORT", str(port))
        (directory / "nginx.conf").write_text(text)
        server(need("nginx", "nginx-light"), "-p", str(directory), "-c", "nginx.conf", "-e", "stderr")
        return port
    (directory / "both.pem").write_bytes(cert.read_bytes() + key.read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = (HAPROXY % (f"ssl crt {directory}/both.pem" if tls else "")).replace("PORT", str(port))
    (directory / "haproxy.cfg").write_text(text)
    server(need("haproxy"), "-f", str(directory / "haproxy.cfg"), "-db")
    return port


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("tls", [False, True])
async def test_readers_of_the_proxy_protocol(
    play: Play, server: Run, certificates: Certificates, tmp_path: Path, name: str, version: str, tls: bool
) -> None:
    port = start_peer(name, server, certificates, tmp_path, tls)
    more = f"proxy_protocol: {version}" + (f", tls: {{ca: {certificates.ca}}}" if tls else "")
    more += ", health_check: {path: /, interval: 100ms, timeout: 5s}"
    scene = await before(play, port, more, "trusted_proxies: [127.0.0.1]\n")
    await eventually(lambda: scene.balancer.metric("lb_backend_up") == 1, "a good probe")
    scheme = "https" if tls else "http"
    clients = [await scene.connect() for _ in range(3)]
    for client in (*clients, *clients):
        await client.send(GET)
        response = await client.response()
        expected = f"127.0.0.1 {client.info('sockname')[1]} {scheme}"
        assert (response.status, response.body.decode().strip()) == (200, expected)
    for who in ("203.0.113.7", "2001:db8::7"):
        response = await scene.ask(get("/", f"X-Forwarded-For: {who}"))
        words = response.body.decode().split()
        assert (words[0], words[-1]) == (who, scheme)
