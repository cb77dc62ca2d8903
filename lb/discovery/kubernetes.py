"""The source `kubernetes`: the endpoints of a Service, by the EndpointSlices of its API server.

It lists once and watches from there on ("Efficient detection of changes" in Kubernetes' API concepts). A
watch that ends goes on from the last version seen; where the server has forgotten that one (410, as a status
or as an event within a 200) it lists anew. Not by watch-list, which not every server has.

A server that was restored from a backup may know only older versions, and a watch from one of its future
brings nothing at all, until the future is there. So nothing is taken for granted that a watch hasn't
confirmed: one that brought neither an event nor a bookmark is followed by a list, and one that goes on where
another was cut short is itself a short one.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TypeVar

import aiohttp
from msgspec import DecodeError, Raw, Struct, field
from msgspec.json import Decoder

from lb import __version__
from lb.core.backend import BackendSpec
from lb.discovery.base import Pace, SourceError
from lb.discovery.endpoint_slices import EndpointSlice, EndpointSlices, Metadata
from lb.discovery.kubernetes_access import Access
from lb.discovery.trouble import in_words

ANSWER_WITHIN = 10.0  # seconds that a list may take, and the head of a watch
WATCH = (240, 480)
"""Seconds after which the server shall end a watch: drawn, so that not all come back at once."""
SHORT_WATCH = (60, 120)  # where the last one ended before its time: the server may be another one now
LATE = 30.0  # seconds behind that, after which we end it ourselves
LONGEST_LINE = 64 * 2**20  # bytes of one event at most
SHOWN = 200  # bytes of what an API server says in words that nobody knows
PAUSE = 0.2  # seconds until the next list or watch, doubled while they come to nothing
LONGEST_PAUSE = 15.0  # up to this
STEADY = 10.0  # seconds that a watch takes at least which came to something
LONGEST_RETRY_AFTER = 60.0  # seconds that a server may send us away for
KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""When the kernel finds out that the server is gone without a word: a watch may say nothing for hours."""

_SLICE = re.compile(
    rb'\{"type":"(?:ADDED|MODIFIED)","object":\{(?:"kind":"EndpointSlice",)?(?:"apiVersion":"[^"]*",)?'
    rb'"metadata":\{"name":"([^"\\]+)",'
)
"""An event as API servers write it, with the name of the slice. Another one is read at once."""

_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class Service:
    """A Service by its name, in a namespace (empty: the one of the access), and the port that is wanted: a
    name, a number, or empty where it has only one."""

    name: str
    namespace: str = ""
    port: str = ""


class _ListAnew(Exception):
    """What the last list said, and the watches since, is not to be relied upon any more."""


class KubernetesSource:
    """Lists, watches, and lists again. `access` tells how to reach the API server, and is asked anew each
    time that it failed; it raises ValueError where nobody knows. `zone` is where we are ourselves."""

    def __init__(
        self, service: Service, access: Callable[[], Access], zone: str = "", rng: Random | None = None
    ) -> None:
        self.service = service
        self._find_access = access
        self._rng = rng or Random()
        self._slices = EndpointSlices(service.port, zone)
        self._pace = Pace()
        self._version = ""
        self._hurried = 0  # lists and watches in a row that came to nothing

    async def watch(self) -> AsyncIterator[Sequence[BackendSpec]]:
        try:
            access = self._find_access()
        except ValueError as error:
            raise SourceError(str(error)) from error
        namespace = self.service.namespace or access.namespace
        path = f"{access.server}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        try:
            async with self._session(access) as session:
                while True:
                    began = time.monotonic()
                    try:
                        await self._list(session, access, path)
                        yield self._slices.backends()
                        async for _ in self._changes(session, access, path):
                            yield self._slices.backends()
                    except _ListAnew:
                        await self._pause(began)
        except _NO_ANSWER as error:
            silent = isinstance(error, TimeoutError) and not error.errno
            why = f" within {ANSWER_WITHIN:g} s" if silent else f": {in_words(error)}"
            raise SourceError(f"no answer of the API server at {access.server}{why}") from error

    async def _pause(self, began: float) -> None:
        """Waits a moment, and longer each time if what began then took no time."""
        self._hurried = 0 if time.monotonic() - began > STEADY else self._hurried + 1
        longest = min(LONGEST_PAUSE, PAUSE * 2.0 ** min(self._hurried, 16))
        await asyncio.sleep(self._rng.uniform(longest / 2, longest))

    def _session(self, access: Access) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=access.tls if access.tls is not None else True),
            timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN),
            headers={"User-Agent": f"lb/{__version__}", "Accept": "application/json"},
        )

    def _query(self, **more: str) -> dict[str, str]:
        return {"labelSelector": f"kubernetes.io/service-name={self.service.name}", **more}

    # --- the list ---

    async def _get(
        self, session: aiohttp.ClientSession, access: Access, path: str, timeout: float, query: dict[str, str]
    ) -> aiohttp.ClientResponse:
        """The answer's head, which must come soon; `timeout` is for all of it."""
        try:
            headers = access.headers()
        except (OSError, ValueError) as error:
            raise SourceError(f"the token of {access.about} can't be read: {error}") from error
        async with asyncio.timeout(ANSWER_WITHIN):
            return await session.get(
                path,
                params=query,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
                server_hostname=access.server_name or None,
            )

    async def _list(self, session: aiohttp.ClientSession, access: Access, path: str) -> None:
        """Without a resourceVersion: what holds now, and not what some cache remembers."""
        async with await self._get(session, access, path, ANSWER_WITHIN, self._query()) as response:
            await self._must_be_well(response, access)
            found = _as(_SliceList, await response.read())
        self._slices.replace(found.items or ())
        self._version = found.metadata.resourceVersion

    async def _must_be_well(self, response: aiohttp.ClientResponse, access: Access) -> None:
        status = response.status
        if status == 200:
            return
        try:
            said = str(json.loads(await response.read()).get("message", ""))
        except (ValueError, AttributeError):
            said = ""
        if status == 410:
            raise _ListAnew
        namespace = self.service.namespace or access.namespace
        words = f"the API server says {status} {response.reason or ''}".rstrip()
        if status == 401:
            words += f": it does not know us; the token of {access.about} may be wrong, or have expired"
        elif status == 403:
            words += (
                f": a Role in the namespace {namespace} must allow list and watch on endpointslices of "
                "discovery.k8s.io, and a RoleBinding must bind it to our ServiceAccount"
            )
        retry = response.headers.get("Retry-After", "")
        after = min(float(retry), LONGEST_RETRY_AFTER) if retry.isdecimal() and len(retry) < 9 else None
        raise SourceError(words + (f" ({said})" if said else ""), after)

    # --- the watch ---

    async def _changes(
        self, session: aiohttp.ClientSession, access: Access, path: str
    ) -> AsyncIterator[None]:
        """Each time when something has changed. Watches that end are begun anew. Raises _ListAnew."""
        length = WATCH
        while True:
            seconds = self._rng.randint(*length)
            query = self._query(
                watch="1",
                resourceVersion=self._version,
                allowWatchBookmarks="true",
                timeoutSeconds=str(seconds),
            )
            began = time.monotonic()
            # The server ends it; the timeout is for one that has forgotten to.
            async with await self._get(session, access, path, seconds + LATE, query) as response:
                await self._must_be_well(response, access)
                _keep_alive(response)
                lines = _Lines(response.content)
                async for _ in self._settled(lines):
                    yield
            if not lines.count:
                raise _ListAnew
            early = time.monotonic() - began < seconds - 1
            length = SHORT_WATCH if early else WATCH
            if early:
                await self._pause(began)

    async def _settled(self, lines: _Lines) -> AsyncIterator[None]:
        """When something has changed: at once, and seldom enough not to spend all the time on it.

        An event brings the whole of a slice: while they come faster than sets are made, only the last one of
        each slice is read.
        """
        latest: dict[bytes, bytes] = {}
        dirty, due = False, 0.0
        while True:
            line = await lines.next(max(0.0, due - time.monotonic()) if dirty else None)
            if line:
                known = _SLICE.match(line)
                if known:
                    latest.pop(known[1], None)  # the last one is to be the last: it has the version
                    latest[known[1]] = line
                    dirty = True
                else:
                    self._catch_up(latest)
                    dirty = self._on_event(line) or dirty
            if dirty and (line is None or (time.monotonic() >= due and not lines.more)):
                began = time.thread_time()
                self._catch_up(latest)
                yield
                dirty, due = False, time.monotonic() + self._pace.rest_after(time.thread_time() - began)
            if line == b"":
                if dirty:
                    self._catch_up(latest)
                    yield
                return

    def _catch_up(self, latest: dict[bytes, bytes]) -> None:
        for line in latest.values():
            self._on_event(line)
        latest.clear()

    def _on_event(self, line: bytes) -> bool:
        """Whether anything may be different now."""
        event = _as(_Event, line)
        if event.type in ("ADDED", "MODIFIED"):
            item = _as(EndpointSlice, event.object)
            self._slices.put(item)
            self._version = item.metadata.resourceVersion or self._version
            return True
        told = _as(_Told, event.object)
        if event.type == "ERROR":
            if told.code == 410:
                raise _ListAnew
            words = told.message or told.reason or bytes(event.object)[:SHOWN].decode("utf-8", "replace")
            raise SourceError(f"the watch failed: {words}")
        self._version = told.metadata.resourceVersion or self._version
        if event.type == "DELETED":
            self._slices.remove(told.metadata.name)
            return True
        return False  # a bookmark: how far we are, and nothing else


# --- bytes ---


class _Lines:
    """The lines of an answer that goes on."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._rest = bytearray()
        self._seen = 0  # of the rest, how much holds no line end
        self.count = 0  # of those that weren't empty

    @property
    def more(self) -> bool:
        """Whether there is another one already."""
        return self._rest.find(b"\n", self._seen) >= 0

    async def next(self, wait: float | None) -> bytes | None:
        """The next one that isn't empty; b"" at the end, None where there is none within so many seconds."""
        while True:
            end = self._rest.find(b"\n", self._seen)
            if end >= 0:
                line = bytes(self._rest[:end])
                del self._rest[: end + 1]
                self._seen = 0
                if line.strip():
                    self.count += 1
                    return line
                continue
            self._seen = len(self._rest)
            if self._seen > LONGEST_LINE:
                raise SourceError("the API server sends an event that is too long")
            try:
                piece = await asyncio.wait_for(self._content.readany(), wait)
            except TimeoutError:
                if wait is None:
                    raise
                return None
            if not piece:
                return b""
            self._rest += piece


# --- what they say ---


class _SliceList(Struct):
    """An EndpointSliceList."""

    metadata: Metadata
    items: list[EndpointSlice] | None = None


class _Event(Struct):
    """A WatchEvent: what its object is goes by its type."""

    type: str
    object: Raw = Raw(b"{}")


class _Told(Struct):
    """Any object, and a Status where it is one."""

    metadata: Metadata = field(default_factory=Metadata)
    code: int | None = None
    message: str = ""
    reason: str = ""


S = TypeVar("S", bound=Struct)


@cache
def _decoder(kind: type[S]) -> Decoder[S]:
    return Decoder(kind)


def _as(kind: type[S], data: bytes | Raw) -> S:
    """What the API server sent, as one of these. Raises SourceError where it isn't one."""
    decoder: Decoder[S] = _decoder(kind)
    try:
        return decoder.decode(data)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        words = str(error).replace("$", kind.__name__.strip("_"), 1)
        raise SourceError(f"the API server sends what can't be read: {words}") from error


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    transport = response.connection.transport if response.connection is not None else None
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
