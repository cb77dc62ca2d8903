"""The source `kubernetes`: the endpoints of a Service, by the EndpointSlices of its API server.

It lists once and watches from there on ("Efficient detection of changes" in Kubernetes' API concepts). A
watch that ends goes on from the last version seen; where the server has forgotten that one (410, as a status
or as an event within a 200) it lists anew. Not by watch-list, which not every server has.

Which endpoints serve: those that are ready, and those of which nobody said whether they are. One that
terminates leaves, and finishes what it has begun; only where no other one is left, those that still serve
while they terminate stay, as kube-proxy has it (KEP-1669).
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import aiohttp

from lb import __version__
from lb.core.backend import BackendSpec
from lb.discovery.base import SourceError
from lb.discovery.kubernetes_access import Access
from lb.discovery.named import backend_id, host

ANSWER_WITHIN = 10.0  # seconds that a list may take, and the head of a watch
WATCH = (
    240,
    480,
)  # seconds after which the server shall end a watch: drawn, so that not all come back at once
LONGEST_LINE = 64 * 2**20  # bytes of one event at most
PAUSE = 0.2  # seconds until the next list, where the server has forgotten the version
PART = 0.1  # of the time at most goes into making sets, where changes come one upon another
KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""When the kernel finds out that the server is gone without a word: a watch may say nothing for hours."""

_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class Service:
    """A Service by its name, in a namespace (empty: the one of the access), and the port that is wanted: a
    name, a number, or empty where it has only one."""

    name: str
    namespace: str = ""
    port: str = ""


class _Expired(Exception):
    """The server has forgotten the version that a watch was to go on from."""


class KubernetesSource:
    """Lists, watches, and lists again. `access` tells how to reach the API server, and is asked anew each
    time that it failed; it raises ValueError where nobody knows."""

    def __init__(self, service: Service, access: Callable[[], Access], rng: Random | None = None) -> None:
        self.service = service
        self._find_access = access
        self._rng = rng or Random()
        self._slices: dict[str, _Slice] = {}
        self._version = ""
        self._known: dict[tuple[str, str, int, str], BackendSpec] = {}

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
                    try:
                        await self._list(session, access, path)
                        yield self._backends()
                        async for _ in self._changes(session, access, path):
                            yield self._backends()
                    except _Expired:
                        await asyncio.sleep(PAUSE)
        except _NO_ANSWER as error:
            words = str(error) or type(error).__name__
            raise SourceError(f"no answer of the API server at {access.server}: {words}") from error

    def _session(self, access: Access) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=access.tls if access.tls is not None else True),
            timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN),
            headers={"User-Agent": f"lb/{__version__}", "Accept": "application/json"},
        )

    def _query(self, **more: str) -> dict[str, str]:
        return {"labelSelector": f"kubernetes.io/service-name={self.service.name}", **more}

    # --- the list ---

    async def _list(self, session: aiohttp.ClientSession, access: Access, path: str) -> None:
        async with session.get(path, params=self._query(), headers=access.headers()) as response:
            await self._must_be_well(response, access)
            found = _object(await response.read())
        self._slices = {}
        for item in found.get("items") or ():
            self._put(item)
        self._version = str(found.get("metadata", {}).get("resourceVersion", ""))

    def _put(self, item: Mapping[str, Any]) -> None:
        try:
            each = _Slice(item)
            self._slices[each.name] = each
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(f"an EndpointSlice can't be read: {type(error).__name__}: {error}") from error

    async def _must_be_well(self, response: aiohttp.ClientResponse, access: Access) -> None:
        status = response.status
        if status == 200:
            return
        try:
            said = str(json.loads(await response.read()).get("message", ""))
        except (ValueError, AttributeError):
            said = ""
        if status == 410:
            raise _Expired
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
        after = float(retry) if retry.isdecimal() and len(retry) < 4 else None
        raise SourceError(words + (f" ({said})" if said else ""), after)

    # --- the watch ---

    async def _changes(
        self, session: aiohttp.ClientSession, access: Access, path: str
    ) -> AsyncIterator[None]:
        """Each time when something has changed. Watches that end are begun anew. Raises _Expired."""
        while True:
            seconds = self._rng.randint(*WATCH)
            query = self._query(
                watch="1",
                resourceVersion=self._version,
                allowWatchBookmarks="true",
                timeoutSeconds=str(seconds),
            )
            # The server ends it; this is for one that has forgotten to.
            timeout = aiohttp.ClientTimeout(total=seconds + 30.0, sock_connect=ANSWER_WITHIN)
            began = time.monotonic()
            async with session.get(path, params=query, headers=access.headers(), timeout=timeout) as response:
                await self._must_be_well(response, access)
                _keep_alive(response)
                async for _ in self._settled(_Lines(response.content)):
                    yield
            # One that ends at once is a server on its way out: no reason to ask it in a loop.
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - began)))

    async def _settled(self, lines: _Lines) -> AsyncIterator[None]:
        """When something has changed: at once, and seldom enough not to spend all the time on it."""
        dirty, due = False, 0.0
        while True:
            wait = max(0.0, due - time.monotonic()) if dirty else None
            line = await lines.next(wait)
            if line:
                dirty = self._on_event(_object(line)) or dirty
            if dirty and (line is None or (time.monotonic() >= due and not lines.more)):
                began = time.monotonic()
                yield
                now = time.monotonic()
                dirty, due = False, now + (now - began) / PART
            if line == b"":
                if dirty:
                    yield
                return

    def _on_event(self, event: Mapping[str, Any]) -> bool:
        """Whether anything may be different now."""
        kind, item = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            if item.get("code") == 410:
                raise _Expired
            raise SourceError(f"the watch failed: {item.get('message') or item.get('reason') or item}")
        version = item.get("metadata", {}).get("resourceVersion")
        if version:
            self._version = str(version)
        if kind in ("ADDED", "MODIFIED"):
            self._put(item)
        elif kind == "DELETED":
            self._slices.pop(str(item.get("metadata", {}).get("name")), None)
        else:
            return False  # a bookmark: how far we are, and nothing else
        return True

    # --- the set ---

    def _backends(self) -> Sequence[BackendSpec]:
        """The backends of all slices. An endpoint may be in several of them for a while, and in one for each
        family of addresses: the first family counts that there is, IPv4 before IPv6."""
        family = min((each.family for each in self._slices.values() if each.endpoints), default=0)
        slices = [each for each in self._slices.values() if each.family == family]
        ready = list(self._named(slices, lambda endpoint: endpoint.ready))
        found = ready or list(self._named(slices, lambda endpoint: endpoint.serving))
        known, self._known = self._known, {}
        specs: dict[str, BackendSpec] = {}
        for key in sorted(found):
            self._known[key] = spec = known.get(key) or BackendSpec(key[0], key[1], key[2])
            specs.setdefault(spec.id, spec)
        return list(specs.values())

    def _named(
        self, slices: Sequence[_Slice], wanted: Callable[[_Endpoint], bool]
    ) -> Iterator[tuple[str, str, int, str]]:
        for each in slices:
            port = each.port(self.service.port)
            if port is None:
                continue
            for endpoint in each.endpoints:
                if wanted(endpoint):
                    at = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
                    yield endpoint.name or backend_id(f"{at}:{port}"), endpoint.address, port, endpoint.zone


@dataclass(frozen=True, slots=True)
class _Endpoint:
    name: str  # of the pod, where it is one
    address: str
    ready: bool
    serving: bool
    zone: str


class _Slice:
    """What matters of an EndpointSlice."""

    def __init__(self, item: Mapping[str, Any]) -> None:
        self.name = str(item["metadata"]["name"])
        self.family = {"IPv4": 0, "IPv6": 1}.get(str(item.get("addressType")), 2)
        self._ports = [
            (str(each.get("name") or ""), int(each["port"]))
            for each in item.get("ports") or ()
            if each.get("port") is not None and each.get("protocol", "TCP") == "TCP"
        ]
        self.endpoints = [
            found for each in item.get("endpoints") or () if (found := _endpoint(each)) is not None
        ]

    def port(self, wanted: str) -> int | None:
        """By name or as the number that it is; None where this slice has no such port. Raises SourceError
        where nobody said which of several."""
        if wanted.isdecimal():
            return int(wanted)
        found = [port for name, port in self._ports if name == wanted or not wanted]
        if len(found) > 1:
            names = ", ".join(name or "(unnamed)" for name, _ in self._ports)
            raise SourceError(f"the Service has several ports ({names}): say which, as in port: http")
        if not found and self._ports and wanted:
            names = ", ".join(name or "(unnamed)" for name, _ in self._ports)
            raise SourceError(f"the Service has no port called {wanted} (there is: {names})")
        return found[0] if found else None


def _endpoint(each: Mapping[str, Any]) -> _Endpoint | None:
    """All addresses of an endpoint are the same one: the first is taken. What is not said of its condition is
    said by `ready`, and that is true where nobody said (discovery.k8s.io/v1, EndpointConditions)."""
    address = host(str((each.get("addresses") or [""])[0]))
    if address is None:
        return None
    conditions = each.get("conditions") or {}
    ready = conditions.get("ready") is not False
    serving = ready if conditions.get("serving") is None else bool(conditions["serving"])
    target = each.get("targetRef") or {}
    name = backend_id(str(target.get("name") or "")) if target.get("kind") == "Pod" else ""
    terminating = bool(conditions.get("terminating"))
    return _Endpoint(name, address, ready and not terminating, serving, str(each.get("zone") or ""))


# --- bytes ---


class _Lines:
    """The lines of an answer that goes on."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._rest = bytearray()
        self._seen = 0  # of the rest, how much holds no line end

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


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise SourceError(f"the API server sends what is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise SourceError("the API server sends what is no object")
    return found


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    transport = response.connection.transport if response.connection is not None else None
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
