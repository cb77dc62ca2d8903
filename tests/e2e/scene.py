"""A scene: a running balancer, its backends and its clients, all of them real."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

from tests.conformance.strict import Response
from tests.e2e.process import Balancer, running, until
from tests.e2e.wire import GET, OK, Backend, Wire, connect

ONE_BACKEND = """
access_log: off
pools: {greeter: {backends: [$a], retries: off, outlier_detection: off}}
"""


class Stage:
    """A balancer with sockets that listen for its backends, from one test to the next."""

    def __init__(self, balancer: Balancer, sockets: dict[str, socket.socket]) -> None:
        self.balancer = balancer
        self.sockets = sockets


@contextmanager
def set_up(directory: Path, config: str, files: int = 0) -> Iterator[Stage]:
    """Runs a configuration. In it, $a, $b and so on are the addresses of backends."""
    names = sorted(set(Template(config).get_identifiers()))
    sockets = {name: socket.create_server(("127.0.0.1", 0), backlog=1024) for name in names}
    addresses = {name: "{}:{}".format(*each.getsockname()) for name, each in sockets.items()}
    try:
        with running(directory, Template(config).substitute(addresses), files) as balancer:
            yield Stage(balancer, sockets)
    finally:
        for each in sockets.values():
            each.close()


class Scene:
    """What one test plays with."""

    def __init__(self, stage: Stage) -> None:
        self.balancer = stage.balancer
        self.backends = {name: Backend(each) for name, each in stage.sockets.items()}
        self._clients: list[Wire] = []

    async def start(self) -> None:
        for backend in self.backends.values():
            await backend.start()

    @property
    def backend(self) -> Backend:
        """The first backend, which mostly is the only one."""
        return next(iter(self.backends.values()))

    async def first(self) -> Wire:
        """The next new connection at whichever backend it comes to."""
        waiting = [asyncio.ensure_future(backend.accept()) for backend in self.backends.values()]
        done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in others:
            each.cancel()
        return done.pop().result()

    async def connect(
        self, port: int = 0, tls: ssl.SSLContext | None = None, name: str = "localhost"
    ) -> Wire:
        """A new client. With `tls`, it asks for the server of that name."""
        client = await connect(port or self.balancer.port, tls, name)
        self._clients.append(client)
        return client

    async def ask(self, request: bytes, method: str = "GET") -> Response:
        """The response that a new client gets to one request."""
        client = await self.connect()
        await client.send(request)
        response = await client.response(method)
        client.close()
        return response

    async def meet(self, *request: bytes) -> tuple[Wire, Wire]:
        """A new client with this request, else a GET, and the connection at which a backend has got it."""
        client = await self.connect()
        await client.send(*request or (GET,))
        backend = await self.first()
        await backend.request()
        return client, backend

    async def acquainted(self) -> tuple[Wire, Wire]:
        """The same, after the answer: both connections are idle, and there for another request."""
        client, backend = await self.meet()
        await backend.send(OK)
        await client.response()
        return client, backend

    async def close(self) -> None:
        """Ends all, and sees that the balancer holds nothing of it: no request, no connection."""
        for client in self._clients:
            client.reset()
        try:
            await self.gone("lb_backend_in_flight", "lb_client_connections")
        finally:
            for backend in self.backends.values():
                await backend.close()
            await asyncio.sleep(0.01)  # what was aborted is closed in the next turns of the loop
        await self.gone("lb_backend_connections")

    async def gone(self, *gauges: str) -> None:
        """Waits until the balancer, if it still runs, has none of these any more."""

        def none_left() -> bool:
            page = self.balancer.ask("/metrics")[1].splitlines()
            return all(float(line.split()[-1]) == 0 for line in page if line.startswith(gauges))

        if self.balancer.process.poll() is None:
            await asyncio.to_thread(until, none_left, f"the end of {' and '.join(gauges)}", 4)
