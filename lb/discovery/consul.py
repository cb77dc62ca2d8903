"""The source `consul`: the instances of a service that are healthy, as a Consul agent knows them.

It waits for changes by blocking queries. Each answer has an index; the next question, which names it, is
answered when there is a higher one, or after a while with the same set. As Consul's documentation asks for,
an index that goes backwards begins anew, one that isn't above 0 is no index, and questions don't follow each
other without a pause. ("Blocking queries" in Consul's HTTP API, `/v1/health/service/NAME`.)
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from lb import __version__
from lb.core.backend import BackendSpec
from lb.discovery.base import SourceError
from lb.discovery.named import backend_id, host
from lb.discovery.trouble import in_words

WAIT = 55.0  # seconds that a question waits for a change; less than what proxies on the way allow
PATIENCE = 10.0  # seconds for an answer, beside what it waits
PAUSE = 0.1  # seconds from one answer to the next question at least
POLL = 5.0  # seconds between two questions, where answers have no index that could be waited for
PART = 0.025  # of the time of one core at most goes into reading answers
LONG = 256 * 2**10  # bytes of an answer that is read beside the requests
LONGEST = 256 * 2**20  # bytes of an answer at most
SHOWN = 200  # characters of an error that is passed on

MOST_WEIGHT = 65535

_NEEDS = "; the token needs service:read for the service and node:read for its nodes"

_space = re.compile(r"[ \t\r\n]*").match
_value = json.JSONDecoder().raw_decode

Found = tuple[BackendSpec, str]  # an instance, and its node


@dataclass(frozen=True, slots=True)
class Service:
    """What is asked for: a service by its name, of a datacenter (empty: the agent's own), with all the tags.

    `passing` leaves out those whose checks warn; critical ones are never there.
    """

    url: str
    name: str
    datacenter: str = ""
    tags: Sequence[str] = ()
    passing: bool = True


class ConsulSource:
    """Asks an agent. `token` gives what proves who we are, anew each time, or raises ValueError; `tls` is for
    an https URL."""

    def __init__(
        self,
        service: Service,
        token: Callable[[], str] = str,
        tls: Callable[[], ssl.SSLContext] | None = None,
        wait: float = WAIT,
    ) -> None:
        self.service = service
        self._token = token
        self._tls = tls
        self._wait = wait
        self._known: dict[str, BackendSpec] = {}

    async def watch(self) -> AsyncIterator[Sequence[BackendSpec]]:
        index = 0
        async with self._session() as session:
            while True:
                began = time.monotonic()
                text, found, hidden = await self._ask(session, index)
                answered = time.monotonic()
                # One that goes back is of an agent that has begun anew: what it says now holds, and it is
                # asked from the beginning.
                index = max(1, found) if found >= index else 0
                instances, took = await self._read(text)
                if hidden and not instances:
                    raise SourceError(f"{self.service.url} hides what it has{_NEEDS}")
                applying = time.thread_time()
                yield self._specs(instances)
                took += time.thread_time() - applying
                pauses = PAUSE - (answered - began), took / PART
                await asyncio.sleep(max(0.0, *pauses, 0.0 if found else POLL))

    def _session(self) -> aiohttp.ClientSession:
        try:
            tls = True if self._tls is None else self._tls()
        except (OSError, ssl.SSLError) as error:
            raise SourceError(f"its CA can't be used: {error}") from error
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls),
            headers={"User-Agent": f"lb/{__version__}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
        )

    async def _ask(self, session: aiohttp.ClientSession, index: int) -> tuple[bytes, int, bool]:
        """What the agent says; its index, 0 where there is none that can be waited for; and whether it has
        more than the token may see, which isn't the same as to have no more."""
        service = self.service
        query = [("passing", "1")] if service.passing else []
        query += [("dc", service.datacenter)] if service.datacenter else []
        query += [("tag", tag) for tag in service.tags]
        if index:
            query += [("index", str(index)), ("wait", f"{round(self._wait * 1000)}ms")]
        url = f"{service.url}/v1/health/service/{service.name}"
        try:
            token = self._token()
        except ValueError as error:
            raise SourceError(str(error)) from error
        headers = {"X-Consul-Token": token} if token else {}
        # Consul adds up to a sixteenth to the time that it waits, so that not all answers come at once.
        within = PATIENCE + (self._wait * 17 / 16 if index else 0.0)
        try:
            async with (
                asyncio.timeout(within),
                session.get(url, params=query, headers=headers, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise SourceError(await _refused(response))
                text = await _read(response)
                found = response.headers.get("X-Consul-Index", "")
                hidden = response.headers.get("X-Consul-Results-Filtered-By-ACLs", "") == "true"
        except TimeoutError as error:
            raise SourceError(f"{service.url} has not answered within {within:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise SourceError(f"{service.url} can't be asked: {in_words(error)}") from error
        return text, int(found) if found.isascii() and found.isdecimal() else 0, hidden

    async def _read(self, text: bytes) -> tuple[list[Found], float]:
        """The instances in an answer, and the seconds of CPU that it took to read them.

        Raises SourceError for what is no list of instances: half of an answer is none.
        """
        url = self.service.url
        try:
            # What takes more than some milliseconds isn't for the thread that has the requests.
            return _instances(text) if len(text) < LONG else await asyncio.to_thread(_instances, text)
        except _NoList as error:
            raise SourceError(f"{url} has answered with something else than a list") from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SourceError(f"{url} has answered with what is no JSON") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SourceError(f"{url} has named an instance that makes no sense: {error!r}") from error

    def _specs(self, found: list[Found]) -> list[BackendSpec]:
        twice = Counter(spec.id for spec, _ in found)
        specs: dict[str, BackendSpec] = {}
        for spec, node in found:
            if twice[spec.id] > 1:  # unique to each node only
                spec = BackendSpec(
                    backend_id(f"{spec.id}.{node}"), spec.host, spec.port, spec.weight, zone=spec.zone
                )
            before = self._known.get(spec.id)
            specs.setdefault(spec.id, before if before == spec else spec)
        self._known = dict(sorted(specs.items()))
        return list(self._known.values())


async def _refused(response: aiohttp.ClientResponse) -> str:
    text = (await response.content.read(4 * SHOWN)).decode("utf-8", "replace")
    words = " ".join(text.split())[:SHOWN]
    hint = _NEEDS if response.status == 403 else ""
    return f"status {response.status} from {response.url.origin()}: {words or 'no reason given'}{hint}"


async def _read(response: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    async for piece in response.content.iter_any():
        found += piece
        if len(found) > LONGEST:
            raise SourceError(f"{response.url.origin()} answers with more than {LONGEST // 2**20} MiB")
    return bytes(found)


class _NoList(ValueError):
    """An answer that is JSON, but no list."""


def _instances(text: bytes) -> tuple[list[Found], float]:
    """Those that could serve, and the seconds of CPU that it took to find them."""
    began = time.thread_time()
    found = [each for each in map(_instance, _items(text.decode())) if each is not None]
    return found, time.thread_time() - began


def _items(text: str) -> Iterator[Any]:
    """The items of a JSON list, one after the other: megabytes at once would make the other threads wait, as
    reading JSON doesn't let go of the interpreter, and take far longer, since all of it is kept."""
    place = _space(text, 0).end()  # type: ignore[union-attr]
    if text[place : place + 1] != "[":
        json.loads(text)
        raise _NoList
    place = _space(text, place + 1).end()  # type: ignore[union-attr]
    if text[place : place + 1] == "]":
        return _ended(text, place)
    while True:
        item, place = _value(text, place)
        yield item
        place = _space(text, place).end()  # type: ignore[union-attr]
        if text[place : place + 1] == "]":
            return _ended(text, place)
        if text[place : place + 1] != ",":
            raise json.JSONDecodeError("a comma is missing", text, place)
        place = _space(text, place + 1).end()  # type: ignore[union-attr]


def _ended(text: str, place: int) -> None:
    if text[place + 1 :].strip(" \t\r\n"):
        raise json.JSONDecodeError("more follows", text, place + 1)


def _instance(entry: Any) -> Found | None:
    """An instance and its node, or None for one that nobody could connect to, or that is critical."""
    service, node = entry["Service"], entry["Node"]
    statuses = {check["Status"] for check in entry.get("Checks") or ()}
    address = host(service["Address"] or node["Address"])
    port, meta = service["Port"], service.get("Meta") or {}
    weights = service.get("Weights") or {}
    weight = weights.get("Warning" if "warning" in statuses else "Passing", 1)
    if type(port) is not int or type(weight) is not int:
        raise ValueError(f"port {port!r}, weight {weight!r}")
    if address is None or not 0 < port < 65536 or statuses & {"critical", "maintenance"}:
        return None
    name = meta.get("id") or service["ID"] or f"{address}:{port}"
    spec = BackendSpec(
        backend_id(str(name)), address, port, max(0, min(weight, MOST_WEIGHT)), zone=str(meta.get("zone", ""))
    )
    return spec, str(node.get("Node", ""))
