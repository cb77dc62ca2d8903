"""A stand-in for a Kubernetes API server: replays recordings of a real one (v1.36.3) over real HTTP, chunk by
chunk, or says what a test tells it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

RECORDINGS = Path(__file__).parent / "kubernetes"
FASTER = 20.0  # than it was

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiServer:
    """Answers lists and watches by the next answer that it was given; then it has none, and waits."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[Answer] = asyncio.Queue()
        self.asked: list[dict[str, str]] = []
        self.tokens: list[str] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append({"path": request.path, **request.query})
        self.tokens.append(request.headers.get("Authorization", ""))
        return await (await self.answers.get())(request)

    def replay(self, name: str) -> dict[str, Any]:
        """The next answer is a recording."""
        recorded = json.loads((RECORDINGS / name).read_text())

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(status=recorded["status"])
            response.content_type = "application/json"
            response.enable_chunked_encoding()
            await response.prepare(request)
            now = 0.0
            for when, text in recorded["chunks"]:
                await asyncio.sleep((when - now) / FASTER)
                now = when
                await response.write(text.encode())
            await response.write_eof()
            return response

        self.answers.put_nowait(answer)
        return dict(recorded)

    def say(self, body: Any, status: int = 200, **headers: str) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status, headers=headers)

        self.answers.put_nowait(answer)

    def list(self, *slices: dict[str, Any], version: str = "100") -> None:
        self.say({"kind": "EndpointSliceList", "metadata": {"resourceVersion": version}, "items": slices})

    def stream(self) -> asyncio.Queue[bytes | None]:
        """The next answer is a watch that sends what is put into the queue; None is its end."""
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            while (piece := await pieces.get()) is not None:
                await response.write(piece)
            return response

        self.answers.put_nowait(answer)
        return pieces


@asynccontextmanager
async def api_server(ssl: Any = None) -> AsyncIterator[ApiServer]:
    server = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl)
    await site.start()
    server.url = f"http{'s' if ssl else ''}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def endpoint(address: str, pod: str = "", zone: str = "", **conditions: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"addresses": [address], "conditions": conditions}
    if pod:
        found["targetRef"] = {"kind": "Pod", "name": pod}
    if zone:
        found["zone"] = zone
    return found


def slice_of(
    name: str, *endpoints: dict[str, Any], ports: Any = None, family: str = "IPv4", version: str = "1"
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": version},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}] if ports is None else ports,
    }


def event(kind: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


async def next_set(sets: Any) -> list[str]:
    """The addresses of what a source says next."""
    found = await asyncio.wait_for(anext(sets), 10)
    return [spec.address for spec in found]
