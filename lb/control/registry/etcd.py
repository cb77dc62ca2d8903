"""A store in etcd, through the JSON gateway of its v3 API: any number of balancers share one table.

An instance is a key without a lease. The state of a check is another key, which hangs on a lease of the
check's TTL as long as it isn't critical: when heartbeats stay away etcd removes it, and that means critical.
Everyone watches both, from the revision on at which the table was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from random import uniform
from typing import Any, Final
from urllib.parse import quote, unquote

import aiohttp

from lb.control.registry.etcd_client import NO_ANSWER, PREFIX, EtcdClient, Login
from lb.control.registry.model import (
    CRITICAL,
    MAINTENANCE,
    Instance,
    State,
    expired,
    from_record,
    to_record,
)
from lb.control.registry.store import Unavailable
from lb.control.registry.table import Table

log = logging.getLogger("lb.registry")

_INSTANCES: Final = PREFIX + "instances/"
_STATES: Final = PREFIX + "states/"
SEEN_BY: Final = 2.0  # seconds in which the watch shows what we have written
PING: Final = 3.0  # seconds between two looks at whether who we watch is still there
AGAIN: Final = (0.1, 5.0)  # seconds until a watch that has ended is tried again: first, and at most
FIRST: Final = 5.0  # seconds that the start waits for the first table
_LINE_AT_MOST: Final = 64 * 2**20  # bytes of one message of the watch

Wanted = dict[str, tuple[Instance, dict[str, State]]]


class _Compacted(Exception):
    """The revision that the watch was to go on from is gone."""


class EtcdStore:
    """The table in etcd. `urls` are its members, of which any will do. `tls` is for those with https."""

    expires = True

    def __init__(
        self,
        urls: Sequence[str],
        login: Login | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._client = EtcdClient(urls, login, tls)
        self.trouble = "etcd has not been read yet"
        self._watcher: asyncio.Task[None] | None = None
        self._revision = 0  # the table is as etcd was at this one
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._read = False
        self._tried = asyncio.Event()  # to read and to watch it, for the first time
        self._wait = AGAIN[0]
        self._leases: dict[
            tuple[str, str], str
        ] = {}  # by instance and check, of states that are not critical

    async def open(self, table: Table) -> None:
        """Begins to watch. Where etcd isn't there, the table comes when it is. Raises OSError for a CA that
        can't be used."""
        self._table = table
        self._client.open()
        self._watcher = asyncio.get_running_loop().create_task(self._follow())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._tried.wait(), FIRST)

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        await self._client.close()

    # --- changes ---

    async def put(self, instance: Instance, states: Mapping[str, State]) -> None:
        """All of it or nothing. States that aren't critical hang on their leases, new ones if need be."""
        ttls = {check.id: check.ttl for check in instance.checks}
        before = self._table.entries.get(instance.id)
        requests = [_put(_INSTANCES + _quoted(instance.id), to_record(instance))]
        for name, state in states.items():
            if before is not None and before.states.get(name) == state and state.status != CRITICAL:
                continue  # as it is, on the lease that it has
            lease = await self._grant(ttls.get(name, 0.0)) if state.status != CRITICAL else "0"
            requests.append(_put(_state_key(instance.id, name), _state(state, lease), lease))
        gone = [] if before is None else [name for name in before.states if name not in states]
        requests += [{"request_delete_range": {"key": _b64(_state_key(instance.id, name))}} for name in gone]
        await self._transact(requests)

    async def remove(self, instance_id: str) -> None:
        await self._transact(
            [
                {"request_delete_range": {"key": _b64(_INSTANCES + _quoted(instance_id))}},
                {"request_delete_range": _range(_STATES + _quoted(instance_id) + "/")},
            ]
        )

    async def set_state(self, instance_id: str, check: str, state: State | None, ttl: float) -> None:
        key = _state_key(instance_id, check)
        if state is None:
            await self._transact([{"request_delete_range": {"key": _b64(key)}}])
            return
        entry = self._table.entries.get(instance_id)
        before = None if entry is None else entry.states.get(check)
        lease = self._leases.get((instance_id, check), "0")
        if state.status == CRITICAL:
            lease = "0"
        elif lease == "0" or not await self._keep_alive(lease):
            lease = await self._grant(ttl)
        elif before is not None and before.status == state.status:
            self._table.set_state(instance_id, check, state)
            return
        # Only where the instance is still there: someone may have deregistered it meanwhile.
        await self._transact([_put(key, _state(state, lease), lease)], _INSTANCES + _quoted(instance_id))

    async def _transact(self, requests: list[dict[str, Any]], exists: str = "") -> None:
        """Writes all of it, and waits until the table has it."""
        transaction: dict[str, Any] = {"success": requests}
        if exists:
            transaction["compare"] = [
                {"key": _b64(exists), "target": "VERSION", "result": "GREATER", "version": "0"}
            ]
        answer = await self._client.ask("kv/txn", transaction)
        if answer.get("succeeded"):
            await self._seen(int(answer["header"]["revision"]))

    async def _seen(self, revision: int) -> None:
        if self._revision >= revision:
            return
        shown: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, shown))
        with contextlib.suppress(TimeoutError):  # it is safe in any case; others see it when we do
            await asyncio.wait_for(shown, SEEN_BY)

    async def _grant(self, ttl: float) -> str:
        if not ttl:
            return "0"
        answer = await self._client.ask("lease/grant", {"TTL": str(ceil(ttl))})
        return str(answer["ID"])

    async def _keep_alive(self, lease: str) -> bool:
        answer = await self._client.ask("lease/keepalive", {"ID": lease})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    # --- watching ---

    async def _follow(self) -> None:
        """Keeps the table as etcd has it. While etcd is away the table stays as it was."""
        self._wait = AGAIN[0]
        while True:
            try:
                if not self._read:
                    await self._read_all()
                await self._watch()
            except _Compacted:
                log.info(
                    "registry: etcd has forgotten what came after revision %d; read anew", self._revision
                )
                self._read = False
                continue
            except (Unavailable, *NO_ANSWER, OSError, KeyError) as error:
                self._on_trouble(f"etcd is away: {error}")
            await asyncio.sleep(uniform(self._wait / 2, self._wait))
            self._wait = min(self._wait * 2, AGAIN[1])

    def _on_trouble(self, trouble: str) -> None:
        if not self.trouble or not self._tried.is_set():
            log.warning("registry: the table stays as it is: %s", trouble)
        changed, self.trouble = self.trouble != trouble, trouble
        self._tried.set()
        if changed:
            self._table.stir()

    def _on_watching(self) -> None:
        """From here on nothing is missed."""
        self._wait = AGAIN[0]
        self._tried.set()
        if self.trouble:
            log.info("registry: etcd answers")
            self.trouble = ""
            self._table.stir()

    async def _read_all(self) -> None:
        answer = await self._client.ask("kv/range", _range(PREFIX))
        wanted: Wanted = {}
        states: list[tuple[str, str, State, str]] = []
        for pair in answer.get("kvs", ()):
            key, value = _decoded(pair["key"]), b64decode(pair.get("value", ""))
            if key.startswith(_INSTANCES):
                with _told(key):
                    instance = from_record(json.loads(value))
                    wanted[instance.id] = instance, {}
            elif key.startswith(_STATES):
                with _told(key):
                    states.append((*_names(key), *_read_state(value)))
        self._leases = {}
        for instance_id, check, state, lease in states:
            if instance_id in wanted:
                wanted[instance_id][1][check] = state
                self._leases[instance_id, check] = lease
        self._table.replace(wanted)
        self._now_at(int(answer["header"]["revision"]))
        self._read = True

    async def _watch(self) -> None:
        """Until it ends. Raises _Compacted where it can't go on from where we are."""
        create = {**_range(PREFIX), "start_revision": str(self._revision + 1)}
        url = self._client.urls[0]
        async with self._client.stream(url, "watch", {"create_request": create}) as response:
            pinger = asyncio.get_running_loop().create_task(self._ping(url, response))
            try:
                async for message in _messages(response):
                    self._on_message(message)
            finally:
                pinger.cancel()

    async def _ping(self, url: str, response: aiohttp.ClientResponse) -> None:
        """Ends the watch where its member is gone without a word, or has lost the others."""
        while True:
            await asyncio.sleep(PING)
            try:
                await self._client.ask_one(url, "kv/range", {"key": _b64(PREFIX), "limit": "1"})
            except (Unavailable, *NO_ANSWER) as error:
                log.debug("registry: %s no longer answers: %s", url, error)
                response.close()
                return

    def _on_message(self, message: Mapping[str, Any]) -> None:
        result = message.get("result")
        if result is None:
            raise ValueError(str(message.get("error", message)))
        if result.get("canceled"):
            if "compact_revision" in result:
                raise _Compacted
            self._client.forget()  # it may have been our token
            raise ValueError(str(result.get("cancel_reason", "the watch was cancelled")))
        if result.get("created"):
            self._on_watching()
        revision = 0
        for event in result.get("events", ()):
            pair = event["kv"]
            revision = max(revision, int(pair["mod_revision"]))
            key = _decoded(pair["key"])
            with _told(key):
                if event.get("type") == "DELETE":
                    self._on_delete(key)
                else:
                    self._on_put(key, b64decode(pair.get("value", "")))
        # The header's own revision may be ahead of what has been told.
        self._now_at(revision)

    def _on_put(self, key: str, value: bytes) -> None:
        if key.startswith(_INSTANCES):
            instance = from_record(json.loads(value))
            before = self._table.entries.get(instance.id)
            mine = {check.id for check in instance.checks}
            old = {} if before is None else before.states
            kept = {
                name: state for name, state in old.items() if name in mine or name.startswith(MAINTENANCE)
            }
            self._table.put(instance, kept)
        else:
            instance_id, check = _names(key)
            state, lease = _read_state(value)
            self._leases[instance_id, check] = lease
            self._table.set_state(instance_id, check, state)

    def _on_delete(self, key: str) -> None:
        if key.startswith(_INSTANCES):
            self._table.remove(unquote(key[len(_INSTANCES) :]))
        else:
            instance_id, check = _names(key)
            self._leases.pop((instance_id, check), None)
            entry = self._table.entries.get(instance_id)
            if entry is not None and any(each.id == check for each in entry.instance.checks):
                self._table.set_state(instance_id, check, expired(entry.states.get(check)))
            else:
                self._table.set_state(instance_id, check, None)

    def _now_at(self, revision: int) -> None:
        self._revision = max(self._revision, revision)
        waiting, self._waiting = self._waiting, []
        for wanted, shown in waiting:
            if wanted > self._revision:
                self._waiting.append((wanted, shown))
            elif not shown.done():
                shown.set_result(None)


@contextlib.contextmanager
def _told(key: str) -> Any:
    """What someone else has put there, and can't be read, is told of and passed over."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        log.warning("registry: what etcd has at %s can't be read: %s", key, error)


async def _messages(response: aiohttp.ClientResponse) -> Any:
    """The JSON values of an answer that goes on, one in each line, however long."""
    rest = bytearray()
    async for piece in response.content.iter_any():
        rest += piece
        while (end := rest.find(b"\n")) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            if line.strip():
                yield json.loads(line)
        if len(rest) > _LINE_AT_MOST:
            raise ValueError("a message of the watch is too long")


# --- keys and values ---


def _b64(text: str) -> str:
    return b64encode(text.encode()).decode()


def _decoded(key: str) -> str:
    return b64decode(key).decode("utf-8", "replace")


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _state_key(instance_id: str, check: str) -> str:
    return f"{_STATES}{_quoted(instance_id)}/{_quoted(check)}"


def _names(key: str) -> tuple[str, str]:
    instance_id, check = key[len(_STATES) :].split("/")
    return unquote(instance_id), unquote(check)


def _range(prefix: str) -> dict[str, str]:
    """Every key that begins so."""
    return {"key": _b64(prefix), "range_end": _b64(prefix[:-1] + chr(ord(prefix[-1]) + 1))}


def _put(key: str, value: Mapping[str, Any], lease: str = "0") -> dict[str, Any]:
    text = b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()
    return {"request_put": {"key": _b64(key), "value": text, "lease": lease}}


def _state(state: State, lease: str) -> dict[str, Any]:
    return {"status": state.status, "output": state.output, "lease": lease}


def _read_state(value: bytes) -> tuple[State, str]:
    found = json.loads(value)
    return State(str(found["status"]), str(found["output"])), str(found["lease"])
