"""The three servers behind every proxy: cheap, so that the load core isn't theirs alone."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .cases import BODIES, SEEN_HEADERS, SEEN_PATH
from .machine import find_program, free_ports, serving

COUNT = 3


@contextlib.contextmanager
def running(directory: Path, cores: frozenset[int]) -> Iterator[list[int]]:
    """Runs the backends on `cores`; yields their ports."""
    ports = free_ports(COUNT)
    nginx = find_program("nginx")
    if nginx:
        command = nginx_command(nginx, directory / "backends", _nginx_server(ports, directory), len(cores))
    else:
        command = [sys.executable, "-m", "benchmarks.responder", *map(str, ports)]
    with serving("backends", command, ports, cores, directory):
        yield ports


def nginx_command(nginx: str, directory: Path, http: str, workers: int) -> list[str]:
    """Writes the configuration of an nginx that keeps to `directory`; `http` is its inner part."""
    directory.mkdir(exist_ok=True)
    temporary = "\n".join(
        f"  {kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Workers that give up root couldn't read our directory, which is nobody else's.
    user = "user root;" if os.geteuid() == 0 else ""
    config = directory / "nginx.conf"
    config.write_text(f"""daemon off;
{user}
worker_processes {workers};
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
{temporary}
{http}
}}
""")
    return [nginx, "-p", str(directory), "-e", "stderr", "-c", str(config)]


def _nginx_server(ports: list[int], directory: Path) -> str:
    listens = "\n".join(f"    listen 127.0.0.1:{port} backlog=1024;" for port in ports)
    seen = "\\n".join(f"$http_{name.lower().replace('-', '_')}" for name in SEEN_HEADERS)
    for path, body in BODIES.items():
        if path != "/":
            (directory / path[1:]).write_bytes(body)
    hello = BODIES["/"].decode().replace("\n", "\\n")
    return f"""  sendfile on;
  tcp_nopush on;
  open_file_cache max=10;
  default_type text/plain;
  server {{
{listens}
    root {directory};
    location = / {{ return 200 "{hello}"; }}
    location = {SEEN_PATH} {{ return 200 "{seen}"; }}
  }}"""
