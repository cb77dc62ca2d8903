"""A connection to a backend by itself."""

from __future__ import annotations

import asyncio
from time import monotonic

from lb.core.backend import Backend, BackendSpec
from lb.core.route import Routes
from lb.proxy.plane import Identification, Plane
from lb.proxy.upstream import Upstream, UpstreamConnection, UpstreamOptions


class Unread(asyncio.Transport):
    """To a backend that has not read so many bytes yet."""

    def __init__(self, waiting: int) -> None:
        super().__init__()
        self.waiting = waiting
        self.said: list[str] = []

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def close(self) -> None:
        self.said.append("close")

    def abort(self) -> None:
        self.said.append("abort")


async def test_who_takes_none_of_our_last_words_is_not_waited_for() -> None:
    """After a tunnel that has ended well. What the backend has not read would keep it for ever."""
    plane = Plane(asyncio.get_running_loop(), Routes(()), {}, Identification(), ())
    connection = UpstreamConnection(
        plane, Upstream(plane, Backend(BackendSpec("a", "a.test", 80)), UpstreamOptions())
    )
    transport = Unread(1000)
    connection.connection_made(transport)
    connection.close(7.0)
    assert transport.said == ["close"]
    assert monotonic() + 6.0 < connection.deadline < monotonic() + 8.0
    transport.waiting = 400  # it reads, if slowly
    connection.on_deadline(100.0)
    assert (transport.said, connection.deadline) == (["close"], 107.0)
    connection.on_deadline(107.0)
    assert transport.said == ["close", "abort"]
