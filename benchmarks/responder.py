"""The backends where there is no nginx: static answers on any number of ports, one process."""

import asyncio
import sys
from typing import cast

import httptools
import uvloop

from .cases import BODIES, SEEN_HEADERS, SEEN_PATH

NAMES = [name.lower().encode() for name in SEEN_HEADERS]


def answer(body: bytes) -> bytes:
    """A whole response with this body."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


ANSWERS = {path.encode(): answer(body) for path, body in BODIES.items()}
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Responder(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's doesn't inherit from it
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.seen: dict[bytes, bytes] = {}

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.url = b""
        self.seen.clear()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.seen[name.lower()] = value

    def on_message_complete(self) -> None:
        if self.url == SEEN_PATH.encode():
            self.transport.write(answer(b"\n".join(self.seen.get(name, b"") for name in NAMES)))
        else:
            self.transport.write(ANSWERS.get(self.url, NOT_FOUND))


async def serve(ports: list[int]) -> None:
    """Answers on these ports of the loopback until the process is ended."""
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(Responder, "127.0.0.1", port, backlog=1024)
    await loop.create_future()


if __name__ == "__main__":
    uvloop.run(serve([int(port) for port in sys.argv[1:]]))
