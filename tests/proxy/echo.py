"""A backend that says what it has heard, and those who ask it."""

from __future__ import annotations

import asyncio

from tests.conformance.strict import Response
from tests.e2e.scene import Scene
from tests.e2e.wire import Wire, answer


async def echo(wire: Wire) -> None:
    """A backend that answers with the head that it got."""
    while True:
        request = await wire.request()
        await wire.send(answer(request.head, "X-Powered-By: echo", "Server: theirs", "Set-Cookie: z=0"))


def record(scene: Scene, response: Response) -> dict:
    return scene.balancer.record(response.get("x-request-id") or "")


async def by_proxy(scene: Scene, request: bytes) -> Response:
    """The response that a client gets who comes from a trusted proxy."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", scene.balancer.port, local_addr=("127.0.0.2", 0)
    )
    wire = Wire(reader, writer)
    await wire.send(request)
    response = await wire.response()
    wire.close()
    return response
