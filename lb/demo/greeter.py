"""A greeter: the small HTTP service that demos and tests put behind the balancer.

    python -m lb.demo.greeter --id greeter-a --bind 127.0.0.1:9001

| path | answer |
|---|---|
| `/healthz` | 200, or 503 from SIGTERM on |
| `/echo` | the request as JSON: method, path, headers (names in lower case), body |
| `/bytes/N` | N bytes, streamed |
| any other | `Hello, World! I am greeter-a.` |

Every answer names the replica in `X-Greeter`. SIGTERM and SIGINT drain: the health check fails at once, new
requests are still taken for `--drain-delay`, then those in flight are waited for. A second one exits at once.
With `--registry` it registers as an instance of the service greeter, and SIGTERM deregisters it first.
The same service in Go is `examples/greeter/main.go`; both pass the same tests.
"""

import argparse
import asyncio
import itertools
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import TypeVar

import uvloop
from aiohttp import web

from lb.config.values import Address, parse_address, parse_duration

MAX_ECHO = 16 * 2**20  # bytes of a body that /echo takes
PIECE = b"0123456789abcdef" * 4096  # what /bytes/N sends again and again: 64 KiB

SIGNALS = (signal.SIGTERM, signal.SIGINT)

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Options:
    """What the command line says. Durations in seconds."""

    id: str
    bind: Address
    delay: float = 0.0
    fail_every: int = 0  # every how many requests one is answered with 500; 0 is never
    drain_delay: float = 0.0
    drain_timeout: float = 25.0
    registry: str = ""  # the URL of one to register at
    ttl: float = 10.0  # without a heartbeat for so long, it is out


class Greeter:
    """The service."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.draining = False
        self.numbers = itertools.count(1)
        self.in_flight = 0
        self.rest = asyncio.Event()  # set when the last one in flight is over, while it drains

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self.work], client_max_size=MAX_ECHO)
        app.router.add_route("*", "/healthz", self.healthz)
        app.router.add_route("*", "/echo", self.echo)
        app.router.add_route("*", r"/bytes/{size:[0-9]{1,18}}", self.stream)
        app.router.add_route("*", "/{path:.*}", self.hello)
        app.on_response_prepare.append(self.sign)
        return app

    async def sign(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Greeter"] = self.options.id
        if self.draining:
            # Who keeps the connection would send the next request here, too.
            response.headers["Connection"] = "close"
            response.force_close()

    @web.middleware
    async def work(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Takes its time and fails as the options say, except for health checks."""
        self.in_flight += 1
        try:
            if request.path != "/healthz":
                if self.options.delay:
                    await asyncio.sleep(self.options.delay)
                if self.options.fail_every and next(self.numbers) % self.options.fail_every == 0:
                    return web.Response(status=500, text="failing on purpose\n")
            return await handler(request)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self.rest.set()

    async def finish(self) -> None:
        """Waits for those in flight. aiohttp's own way to end drops the rest of an upload."""
        while self.in_flight:
            self.rest.clear()
            await self.rest.wait()

    async def healthz(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=503, text="draining\n") if self.draining else web.Response(text="ok\n")

    async def hello(self, request: web.Request) -> web.StreamResponse:
        async for _ in request.content.iter_any():
            pass  # an upload is read to its end, so that the connection can be used again
        return web.Response(text=f"Hello, World! I am {self.options.id}.\n")

    async def echo(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        return web.json_response(
            {
                "greeter": self.options.id,
                "method": request.method,
                "path": request.raw_path,
                "headers": headers,
                "body": body.decode(errors="replace"),
                "length": len(body),
            }
        )

    async def stream(self, request: web.Request) -> web.StreamResponse:
        left = int(request.match_info["size"])
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = left
        await response.prepare(request)
        while left and request.method != "HEAD":
            piece = PIECE[:left]
            await response.write(piece)
            left -= len(piece)
        return response


async def serve(options: Options) -> None:
    """Runs until SIGTERM or SIGINT, and drains."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in SIGNALS:
        loop.add_signal_handler(number, stopped.set)
    greeter = Greeter(options)
    runner = web.AppRunner(greeter.app(), access_log=None, shutdown_timeout=options.drain_timeout)
    await runner.setup()
    site = web.TCPSite(runner, options.bind.host, options.bind.port, backlog=1024)
    await site.start()
    bound = Address(*runner.addresses[0][:2])
    print(f"{options.id} listening on http://{bound}", flush=True)

    async with _registered(options, bound):
        await stopped.wait()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)  # the second one ends us, no matter what we wait for
        greeter.draining = True
    await asyncio.sleep(options.drain_delay)
    with suppress(TimeoutError):
        async with asyncio.timeout(options.drain_timeout):
            await site.stop()
            await greeter.finish()
            await runner.cleanup()


def _registered(options: Options, bound: Address) -> AbstractAsyncContextManager[object]:
    """In the registry for as long as the block lasts, where there is one."""
    if not options.registry:
        return nullcontext()
    from lb.registry import register

    host = "" if bound.host in ("0.0.0.0", "::") else bound.host  # then where the registry sees us
    return register(
        "greeter", port=bound.port, address=host, id=options.id, url=options.registry, ttl=options.ttl
    )


def arguments(argv: Sequence[str] | None = None) -> Options:
    """Reads the command line; where it is silent, GREETER_ID and PORT are asked."""
    parser = argparse.ArgumentParser(prog="greeter", description="A greeter: says hello, and who it is.")
    address, duration = _reader(parse_address), _reader(parse_duration)
    name = os.environ.get("GREETER_ID") or socket.gethostname()
    bind = f"0.0.0.0:{os.environ.get('PORT') or 8080}"
    add = parser.add_argument
    add("--id", default=name, help="who this replica is (host name)")
    add("--bind", type=address, default=bind, help="host:port; port 0 is any (0.0.0.0:8080)")
    add("--delay", type=duration, default="0s", help="how long to work on each answer, such as 50ms (0s)")
    add("--fail-every", type=int, default=0, metavar="N", help="answer every Nth request with 500 (never)")
    add("--drain-delay", type=duration, default="0s", help="go on taking requests after SIGTERM (0s)")
    add("--drain-timeout", type=duration, default="25s", help="wait for requests in flight (25s)")
    add("--registry", default="", metavar="URL", help="register there as an instance of greeter")
    add("--ttl", type=duration, default="10s", help="out of rotation without a heartbeat for so long (10s)")
    return Options(**vars(parser.parse_args(argv)))


def _reader(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Gives argparse the words of the error, which it would drop."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def main() -> None:
    """The command."""
    options = arguments()
    try:
        uvloop.run(serve(options))
    except OSError as error:
        sys.exit(f"{options.id} can't listen on {options.bind}: {error.strerror or error}")


if __name__ == "__main__":
    main()
