"""A store in a file: a journal of all changes, which survives a restart, a crash and a full disk.

Each line is a change as JSON, behind the CRC-32 of it. A change is acknowledged when it is on the disk; those
that come at the same time share one write. Where the lines have become many more than the instances, the file
is written anew and put in the place of the old one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

from lb.control.registry.model import Instance, State, from_record, to_record
from lb.control.registry.store import Unavailable
from lb.control.registry.table import Table

log = logging.getLogger("lb.registry")

SPARE_LINES = 1000  # so many more than needed are left before the file is written anew
TIMES = 4
_LOOK = 0.02  # seconds between two looks at whether another process still has the file: nobody tells
_PATIENCE = 5.0  # seconds that a change waits until it has let go

_BEGINNING = re.compile(rb"[0-9a-f]{8} \{")

Wanted = dict[str, tuple[Instance, dict[str, State]]]


class Damaged(Exception):
    """The file can't be read: where, and what to do."""


class Taken(Exception):
    """Another process has the file."""


class FileStore:
    """The table in a file. One process at a time has it; `waits` is for the one that takes its place."""

    expires = False
    trouble = ""

    def __init__(self, path: str, waits: bool = False) -> None:
        self._path = Path(path)
        self._waits = waits
        self._pending: list[tuple[bytes, Callable[[], None], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._waiter: asyncio.Task[None] | None = None
        self._mine = asyncio.Event()
        self._file = -1
        self._lock = -1
        self._size = 0  # of what is good in the file
        self._lines = 0
        self._refuses = False  # for the disk is full, or the like
        self._unsettled: Counter[tuple[str, str]] = Counter()  # states that are being written

    async def open(self, table: Table) -> None:
        """Reads what is there. Raises Damaged, Taken or OSError."""
        self._table = table
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._take():
            self._begin()
        elif self._waits:  # who still has it is about to go
            table.replace(_read(self._path)[0])
            self._waiter = asyncio.get_running_loop().create_task(self._await_turn())
        else:
            os.close(self._lock)
            self._lock = -1
            raise Taken(
                f"{self._path} is the registry of another balancer that runs. Two can't share a file; "
                "store: {etcd: [URL]} is for several"
            )

    def _take(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _begin(self) -> None:
        wanted, self._size, self._lines = _read(self._path)
        existed = self._path.exists()
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, self._size)
        if not existed:
            _sync_folder(self._path)
        self._table.replace(wanted)
        self._mine.set()

    async def _await_turn(self) -> None:
        while not self._take():  # noqa: ASYNC110 - the kernel tells a thread that waits, but nobody could end it
            await asyncio.sleep(_LOOK)
        try:
            self._begin()
        except (OSError, Damaged) as error:
            log.error("the registry can't be written: %s", error)

    async def close(self) -> None:
        if self._waiter is not None:
            self._waiter.cancel()
        if self._writer is not None:
            await self._writer
        self._mine.clear()
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    async def put(self, instance: Instance, states: Mapping[str, State]) -> None:
        await self._write(_put(instance, states), lambda: self._table.put(instance, states))

    async def remove(self, instance_id: str) -> None:
        await self._write({"remove": instance_id}, lambda: self._table.remove(instance_id))

    async def set_state(self, instance_id: str, check: str, state: State | None, ttl: float) -> None:
        """A heartbeat that changes nothing isn't written: after a restart everyone gets a whole TTL."""
        entry = self._table.entries.get(instance_id)
        before = None if entry is None else entry.states.get(check)
        key = instance_id, check
        same = before is not None and state is not None and before.status == state.status
        if same and key not in self._unsettled:
            self._table.set_state(instance_id, check, state)
            return
        written = None if state is None else [state.status, state.output]
        self._unsettled[key] += 1
        try:
            await self._write(
                {"state": [instance_id, check, written]},
                lambda: self._table.set_state(instance_id, check, state),
            )
        finally:
            self._unsettled[key] -= 1
            if not self._unsettled[key]:
                del self._unsettled[key]

    # --- writing ---

    async def _write(self, change: Mapping[str, Any], apply: Callable[[], None]) -> None:
        if not self._mine.is_set():
            try:
                await asyncio.wait_for(self._mine.wait(), _PATIENCE)
            except TimeoutError:
                raise Unavailable(f"another process still has {self._path}") from None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((_line(change), apply, done))
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write_all())
        await asyncio.shield(done)

    async def _write_all(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                await self._write_batch(batch)
                if self._lines > SPARE_LINES + TIMES * len(self._table.entries):
                    await self._write_anew()
        finally:
            self._writer = None

    async def _write_batch(self, batch: list[tuple[bytes, Callable[[], None], asyncio.Future[None]]]) -> None:
        data = b"".join(line for line, _, _ in batch)
        try:
            await asyncio.to_thread(_append, self._file, self._size, data)
        except OSError as error:
            if not self._refuses:  # everyone who tries is told; the log once
                log.error("the registry can't be written to %s: %s", self._path, error)
            self._refuses = True
            for _, _, done in batch:
                if not done.done():
                    done.set_exception(Unavailable(f"the registry can't be written: {error.strerror}"))
                    done.exception()  # whoever waited may have gone
            return
        if self._refuses:
            log.info("the registry can be written to %s again", self._path)
            self._refuses = False
        self._size += len(data)
        self._lines += len(batch)
        for _, apply, done in batch:
            apply()
            if not done.done():
                done.set_result(None)

    async def _write_anew(self) -> None:
        """Only what holds. Changes that come meanwhile wait."""
        lines = [_line(_put(entry.instance, entry.states)) for entry in self._table.entries.values()]
        data = b"".join(lines)
        try:
            fresh = await asyncio.to_thread(_replace, self._path, data)
        except OSError as error:
            log.warning(
                "the registry's file %s can't be written anew, and goes on growing: %s", self._path, error
            )
            self._lines = 0  # to try it again after as many
            return
        os.close(self._file)
        self._file, self._size, self._lines = fresh, len(data), len(lines)


def _append(file: int, size: int, data: bytes) -> None:
    """Behind what is good. What could not be written whole is taken off again."""
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(file, data[written:], size + written)
        os.fdatasync(file)
    except OSError:
        with contextlib.suppress(OSError):  # else it is cut off when the file is read
            os.ftruncate(file, size)
        raise


def _replace(path: Path, data: bytes) -> int:
    """Puts a new file in the place of the old one, and returns its descriptor."""
    new = path.with_name(path.name + ".new")
    file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _append(file, 0, data)
        new.replace(path)
        _sync_folder(path)
    except OSError:
        os.close(file)
        raise
    return file


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# --- the lines ---


def _put(instance: Instance, states: Mapping[str, State]) -> dict[str, Any]:
    return {
        "put": to_record(instance),
        "states": {name: [state.status, state.output] for name, state in states.items()},
    }


def _line(change: Mapping[str, Any]) -> bytes:
    text = json.dumps(change, separators=(",", ":")).encode()
    return b"%08x %b\n" % (crc32(text), text)


def _read(path: Path) -> tuple[Wanted, int, int]:
    """Everyone in the file, how many of its bytes are good, and the lines. A last line that was not written
    whole, which nobody was told of, is left out. Raises Damaged where it is another one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}, 0, 0
    wanted: Wanted = {}
    good = count = 0
    for number, line in enumerate(_lines(data), 1):
        change = _change(line)
        if change is None and good + len(line) == len(data) and not _has_more(line):
            log.warning("%s:%d: the last change was not written whole, and is left out", path, number)
            break
        if change is None or not _applied(wanted, change):
            raise Damaged(
                f"{path}:{number}: this line is damaged. Restore the file from a backup; or move it away, "
                "and the instances have to register anew"
            )
        good += len(line)
        count = number
    return wanted, good, count


def _lines(data: bytes) -> Iterator[bytes]:
    return iter(data.splitlines(keepends=True))


def _has_more(line: bytes) -> bool:
    """Whether a line that isn't good ends in one that is: then its end is not what's missing."""
    return any(_change(line[each.start() :]) is not None for each in _BEGINNING.finditer(line, 1))


def _change(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % crc32(text[:-1]):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _applied(wanted: Wanted, change: Mapping[str, Any]) -> bool:
    try:
        if "put" in change:
            instance = from_record(change["put"])
            wanted.pop(instance.id, None)
            wanted[instance.id] = instance, {name: State(*each) for name, each in change["states"].items()}
        elif "remove" in change:
            wanted.pop(change["remove"], None)
        else:
            instance_id, check, state = change["state"]
            if instance_id in wanted and state is None:
                wanted[instance_id][1].pop(check, None)
            elif instance_id in wanted:
                wanted[instance_id][1][check] = State(*state)
    except (KeyError, TypeError, ValueError):
        return False
    return True
