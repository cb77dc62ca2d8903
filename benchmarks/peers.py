"""The proxies, each configured for the same job.

The job: three backends in turn, keep-alive on both sides, a new X-Request-ID for the backend and the client,
X-Forwarded-For, -Proto, -Host and Via for the backend, no access log, one core, all else at its default. With
TLS, all have the same certificate, and the load generator chooses the cipher.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .backends import nginx_command
from .machine import StartError, find_program, free_ports

Prepare = Callable[[str, Path, int, Sequence[int], Path | None], list[str]]


@dataclass(frozen=True)
class Peer:
    """A proxy. `prepare(program, directory, port, backends, certificate)` writes a configuration, and
    returns the command. With a certificate, clients speak TLS."""

    name: str
    prepare: Prepare
    program: str = sys.executable
    version_option: str = ""

    def path(self) -> str | None:
        return find_program(self.program)

    def version(self) -> str:
        """The version that it states, or an empty text."""
        if not self.version_option:
            return ""
        done = subprocess.run(
            [self.path() or self.program, self.version_option],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        found = re.search(r"\d+\.\d+[\w.+-]*", done.stdout + done.stderr)
        return found[0] if found else ""


def _lb(
    python: str, directory: Path, port: int, backends: Sequence[int], certificate: Path | None
) -> list[str]:
    config = directory / "lb.yaml"
    addresses = ", ".join(f"127.0.0.1:{backend}" for backend in backends)
    (admin,) = free_ports(1)
    tls = f", tls: {{certificates: [{{cert: {certificate}, key: {certificate}}}]}}" if certificate else ""
    config.write_text(f"""listeners: [{{bind: 127.0.0.1:{port}{tls}}}]
admin: {{bind: 127.0.0.1:{admin}}}
access_log: off
pools: {{greeter: {{backends: [{addresses}]}}}}
""")
    return [python, "-m", "lb", "serve", "-c", str(config)]


def _bare(
    python: str, directory: Path, port: int, backends: Sequence[int], certificate: Path | None
) -> list[str]:
    if certificate:
        raise StartError("it knows no TLS")
    return [python, "-m", "benchmarks.bare", str(port), *map(str, backends)]


def _nginx(
    nginx: str, directory: Path, port: int, backends: Sequence[int], certificate: Path | None
) -> list[str]:
    ssl = (
        f" ssl;\n    ssl_certificate {certificate};\n    ssl_certificate_key {certificate}"
        if certificate
        else ""
    )
    servers = "\n".join(f"    server 127.0.0.1:{backend};" for backend in backends)
    http = f"""  upstream greeter {{
{servers}
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=1024{ssl};
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{
      proxy_pass http://greeter;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Request-ID $request_id;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header Via "1.1 nginx";
      add_header X-Request-ID $request_id;
    }}
  }}"""
    return nginx_command(nginx, directory / "nginx", http, workers=1)


def _haproxy(
    haproxy: str, directory: Path, port: int, backends: Sequence[int], certificate: Path | None
) -> list[str]:
    ssl, scheme = (f" ssl crt {certificate}", "https") if certificate else ("", "http")
    servers = "\n".join(f"  server s{backend} 127.0.0.1:{backend}" for backend in backends)
    config = directory / "haproxy.cfg"
    config.write_text(f"""global
  nbthread 1
  maxconn 4096
defaults
  mode http
  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 600s
  timeout server 600s
frontend web
  bind 127.0.0.1:{port} backlog 1024{ssl}
  unique-id-format %[uuid()]
  unique-id-header X-Request-ID
  http-request set-header X-Forwarded-Proto {scheme}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header Via "1.1 haproxy"
  http-response set-header X-Request-ID %[unique-id]
  default_backend greeter
backend greeter
  balance roundrobin
{servers}
""")
    return [haproxy, "-db", "-f", str(config)]


REFERENCE = "nginx"  # what the ratios are to

PEERS = {
    peer.name: peer
    for peer in (
        Peer("lb", _lb),
        Peer("nginx", _nginx, "nginx", "-v"),
        Peer("haproxy", _haproxy, "haproxy", "-v"),
        Peer("bare", _bare),
    )
}
