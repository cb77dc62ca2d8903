"""Active health checks: every backend of a pool is asked from time to time whether it is well."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Container, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal, Protocol

import aiohttp
from yarl import URL

from lb import __version__
from lb.core.backend import DISABLED, Backend, BackendSpec
from lb.core.health import Health
from lb.core.pool import Pool

log = logging.getLogger("lb.health")

USER_AGENT = f"lb-health-check/{__version__}"
BODY = 64 * 1024  # bytes of an answer's body that are read at most
AT_ONCE = 50  # the first probes of so many backends go out together
PER_SECOND = 1000  # and those of more are spread, so many a second


class Reach(Protocol):
    """How backends are reached where that isn't plain TCP: the data plane's own way (lb/proxy/reach.py)."""

    @property
    def tls(self) -> object:
        """None without TLS."""

    async def probe(self, factory: Any, spec: BackendSpec, patience: float, /) -> asyncio.BaseProtocol:
        """A connection, ready for HTTP. Raises OSError, whose text says why."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How to probe: seconds, seconds, how many good or bad probes in a row change the judgement.

    `path`, `expect` (which statuses are good) and `host` (the Host header; the address if empty) are for
    `http`; `tcp` is content with a connection. `reach` is None for plain TCP.
    """

    type: Literal["http", "tcp"] = "http"
    path: str = "/healthz"
    interval: float = 5.0
    timeout: float = 2.0
    rise: int = 2
    fall: int = 3
    expect: Container[int] = range(200, 400)
    host: str = ""
    reach: Reach | None = None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the last probe of a backend found. `at` is when it began, by the event loop's clock."""

    good: bool
    reason: str
    at: float
    duration: float


class _Probing:
    """The probes of one backend: their task, what they have led to, what the last one found."""

    __slots__ = ("backend", "health", "known", "last", "task")

    def __init__(self, backend: Backend, health: Health) -> None:
        self.backend = backend
        self.health = health
        self.last: ProbeResult | None = None
        self.known = asyncio.Event()  # its first probe is over
        self.task: asyncio.Task[None] | None = None


class Prober:
    """Probes the backends of one pool, each in a task of its own, and tells the pool who is up.

    Every probe opens a new connection, so that a backend that accepts none any more is noticed. One that is
    disabled is left alone.
    """

    def __init__(self, pool: Pool, check: HealthCheck, rng: random.Random | None = None) -> None:
        self.pool = pool
        self.check = check
        self._rng = rng or random.Random()
        self._probing: dict[Backend, _Probing] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._headers = {"Host": check.host} if check.host else {}

    def open(self) -> None:
        """Gets ready to probe, within a running event loop."""
        if self.check.type == "http" and self._session is None:
            reach = self.check.reach
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=0)
                if reach is None
                else _Connector(reach, self.check.timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),  # ours holds for the probe as a whole
                headers={"User-Agent": USER_AGENT},
                auto_decompress=False,
            )

    def start(self) -> None:
        """Begins, within a running event loop."""
        self.open()
        self.sync()

    async def find_well(self, backends: Sequence[Backend], within: float, enough: int = 0) -> list[Backend]:
        """Those that one probe finds well, so many seconds at most. They need not be in the pool yet.

        Where so many are `enough`, it doesn't wait for the others.
        """
        found: list[Backend] = []
        limit = asyncio.Semaphore(AT_ONCE)
        done = asyncio.Event()
        left = len(backends)

        async def ask(backend: Backend) -> None:
            nonlocal left
            async with limit:
                if (await self._probe(backend))[0]:
                    found.append(backend)
            left -= 1
            if not left or len(found) == enough:
                done.set()

        asking = [asyncio.create_task(ask(backend)) for backend in backends]
        if asking:
            try:
                async with asyncio.timeout(within):
                    await done.wait()
            except TimeoutError:
                pass
            finally:
                for task in asking:
                    task.cancel()
                await asyncio.wait(asking)
        return found

    async def close(self) -> None:
        """Ends all probes."""
        for probing in self._probing.values():
            self._end(probing)
        self._probing.clear()
        await asyncio.gather(*self._ending, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def sync(self) -> None:
        """To be called when the pool's set has changed: who is new gets probed, who is gone no longer."""
        present = set(self.pool.backends.values())
        for gone in [backend for backend in self._probing if backend not in present]:
            self._end(self._probing.pop(gone))
        fresh = [backend for backend in self.pool.backends.values() if backend not in self._probing]
        spread = min(self.check.interval, len(fresh) / PER_SECOND) if len(fresh) > AT_ONCE else 0.0
        for backend in fresh:
            health = Health(self.check.rise, self.check.fall)
            if backend.healthy and not self.pool.starts_healthy:
                health.up = True  # judged before, by the prober that this one takes over from
            probing = self._probing[backend] = _Probing(backend, health)
            probing.task = asyncio.create_task(self._run(probing, spread * self._rng.random()))

    async def until_known(self) -> None:
        """Waits until each backend has been probed once."""
        await asyncio.gather(*(probing.known.wait() for probing in self._probing.values()))

    def last(self, backend: Backend) -> ProbeResult | None:
        """What the last probe of this backend found; None where none has ended yet."""
        probing = self._probing.get(backend)
        return None if probing is None else probing.last

    def _end(self, probing: _Probing) -> None:
        task = probing.task
        if task is not None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            task.cancel()

    async def _run(self, probing: _Probing, delay: float) -> None:
        now = monotonic
        await asyncio.sleep(delay)
        while True:
            began = ended = now()
            if probing.backend.state == DISABLED:
                probing.health = Health(self.check.rise, self.check.fall)  # who knows what is done to it
            else:
                good, reason = await self._probe(probing.backend)
                ended = now()
                probing.last = ProbeResult(good, reason, began, ended - began)
                self._judge(probing, good, reason)
            probing.known.set()
            interval = self.check.interval * self._rng.uniform(0.9, 1.1)
            await asyncio.sleep(max(0.0, began + interval - ended))

    def _judge(self, probing: _Probing, good: bool, reason: str) -> None:
        backend, health = probing.backend, probing.health
        backend.checks["success" if good else "failure"] += 1
        first = health.up is None
        if not health.probed(good, reason):
            return
        self.pool.set_health(backend, good)
        probes = 1 if first else health.rise if good else health.fall
        log.log(
            logging.INFO if good else logging.WARNING,
            "pool %s: backend %s is %s after %d %s probe%s: %s",
            self.pool.name,
            backend.id,
            "up" if good else "down",
            probes,
            "good" if good else "failed",
            "" if probes == 1 else "s",
            reason,
        )

    async def _probe(self, backend: Backend) -> tuple[bool, str]:
        """Whether the backend is well, and why."""
        try:
            async with asyncio.timeout(self.check.timeout):
                return await (self._ask(backend) if self._session is not None else self._connect(backend))
        except TimeoutError:
            return False, f"timed out after {self.check.timeout:g} s"
        except (OSError, aiohttp.ClientError) as error:
            return False, _in_words(error)
        except Exception as error:  # a probe that can't even be made must not end the probing
            log.exception("pool %s: probing backend %s failed", self.pool.name, backend.id)
            return False, f"the probe failed: {type(error).__name__}"

    async def _connect(self, backend: Backend) -> tuple[bool, str]:
        spec, reach = backend.spec, self.check.reach
        if reach is None:
            _, writer = await asyncio.open_connection(spec.host, spec.port)
            writer.transport.abort()
        else:
            made: Any = await reach.probe(_Hangup, spec, self.check.timeout + 1.0)
            made.transport.close()
        return True, "connected"

    async def _ask(self, backend: Backend) -> tuple[bool, str]:
        assert self._session is not None
        spec, reach = backend.spec, self.check.reach
        url = URL(f"http://{spec.authority}{self.check.path}", encoded=True)
        headers = self._headers
        if reach is not None:
            if reach.tls is not None and spec.port == 443 and not headers:
                headers = {
                    "Host": spec.address.removesuffix(":443")
                }  # the scheme's own port goes without saying
            probed.set(spec)
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            body = 0
            while body < BODY and (data := await response.content.read(BODY)):
                body += len(data)
            return response.status in self.check.expect, f"status {response.status}"


class _Hangup(asyncio.Protocol):
    """A connection that is enough in itself."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


probed: ContextVar[BackendSpec] = ContextVar("probed")
"""Whom the present task probes. aiohttp knows its URL alone."""


class _Connector(aiohttp.BaseConnector):
    """Connects as the data plane does. For one request each: what it connects to isn't in the URL."""

    allowed_protocol_schema_set = aiohttp.UnixConnector.allowed_protocol_schema_set

    def __init__(self, reach: Reach, timeout: float) -> None:
        super().__init__(force_close=True, limit=0)
        self._reach = reach
        self._patience = timeout + 1.0  # the probe's own time is over sooner

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        return await self._reach.probe(self._factory, probed.get(), self._patience)


def _in_words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "its name can't be resolved"
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number).lower()
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "not well-formed HTTP"
    return str(error) or type(error).__name__
