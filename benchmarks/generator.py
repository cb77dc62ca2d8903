"""The load generator where there is no wrk: one request after the other on each of N connections, by epoll.

python -m benchmarks.generator '{"port": 8080, "request": "GET / …", "connections": 64, "seconds": 5}'
"""

import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from .load import Load

RECEIVE = 262_144
PATIENCE = 10.0  # seconds without any answer at all: a proxy that hangs


class Connection:
    """A keep-alive connection with one request under way."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request
        self.send()

    def send(self) -> None:
        self.head = b""
        self.missing: int | None = None  # bytes of the body still to come; None while the head is
        self.started = time.perf_counter()
        self.socket.sendall(self.request)

    def receive(self) -> tuple[int, bool]:
        """Takes what has come: how many bytes, and whether they complete a response with 2xx."""
        data = self.socket.recv(RECEIVE)
        if not data:
            raise ConnectionError("closed in the middle of a response")
        if self.missing is None:
            self.head += data
            head, end, body = self.head.partition(b"\r\n\r\n")
            if not end:
                return len(data), False
            self.missing = content_length(head) - len(body)
        else:
            self.missing -= len(data)
        if self.missing < 0:
            raise ConnectionError("more bytes than the response has")
        return len(data), self.missing == 0


def content_length(head: bytes) -> int:
    """The length that the head of a 2xx response states; anything else is an error of the run."""
    status, _, fields = head.partition(b"\r\n")
    if status.split()[1][:1] != b"2":
        raise ConnectionError(status.decode(errors="replace"))
    for line in fields.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ConnectionError("no Content-Length")


def load(port: int, request: bytes, connections: int, seconds: float) -> Load:
    """Runs the load. A connection that fails is counted and not opened again."""
    latencies: list[float] = []
    received = errors = 0
    poll = select.epoll()
    start = time.perf_counter()
    by_fd: dict[int, Connection] = {}
    for _ in range(connections):
        connection = Connection(port, request)
        by_fd[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLIN)
    while by_fd and time.perf_counter() - start < seconds:
        events = poll.poll(PATIENCE)
        if not events:
            errors += len(by_fd)
            break
        for fd, _ in events:
            connection = by_fd[fd]
            try:
                size, complete = connection.receive()
                received += size
                if complete:
                    latencies.append(time.perf_counter() - connection.started)
                    connection.send()
            except (OSError, ValueError, IndexError) as error:
                print(f"connection {fd}: {error}", file=sys.stderr)
                errors += 1
                by_fd.pop(fd).socket.close()
    elapsed = time.perf_counter() - start
    latencies.sort()
    return Load(len(latencies), elapsed, received, errors, *(percentile(latencies, p) for p in (0.5, 0.99)))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share lies, in microseconds; 0 of nothing."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e6 if ordered else 0.0


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    print(
        json.dumps(
            asdict(
                load(options["port"], options["request"].encode(), options["connections"], options["seconds"])
            )
        )
    )
