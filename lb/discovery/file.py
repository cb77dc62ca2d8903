"""The source `file`: a list of backends in a file."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from math import inf
from pathlib import Path
from time import monotonic, thread_time

from lb.core.backend import BackendSpec
from lb.discovery.base import SourceError
from lb.discovery.watched import WatchedFile

LOOK = 0.1  # seconds between two looks; a file that was the same in both is at rest
PART = 0.01  # of a core at most goes into reading a file that always changes
LONGEST = 15.0  # seconds at most until it is read again for that
REPLACED = 5  # looks in a row that find another file in its place; each of them was whole when it came there
RESTLESS = 50  # looks in a row that find it changing; more is somebody who writes it again and again
GONE = 5  # looks in a row that don't find it; less is somebody who replaces it
SURE = 15.0  # seconds after which a file that could not be read is read again, changed or not

ALWAYS_WRITTEN = "is being written all the time; better write another file, and rename that to this one"


class FileSource:
    """Reads a file, and again whenever it has changed. `read` makes backends of it, or raises SourceError.

    One that is wrong, because somebody is in the midst of writing it say, is told and changes nothing. It is
    read again as soon as it is another one.
    """

    def __init__(self, path: Path, read: Callable[[Path], Sequence[BackendSpec]]) -> None:
        self._file = WatchedFile(path)
        self._read = read
        self._wrong = False
        self._not_before = 0.0  # of the monotonic clock: it is not read again until then

    async def watch(self) -> AsyncIterator[Sequence[BackendSpec]]:
        # Looking and reading may block for long, on a network's file system say: so not in this thread.
        if self._wrong:
            await self._until_changed(SURE)
        while True:
            self._wrong = True
            try:
                found = await asyncio.to_thread(self._load)
            except SourceError as error:
                raise SourceError(str(error), after=0.0) from error
            self._wrong = False
            yield found
            await self._until_changed()

    def _load(self) -> Sequence[BackendSpec]:
        first, began = not self._file.was_there, thread_time()
        self._file.reading()
        try:
            _must_be_a_file(self._file.path)
            return self._read(self._file.path)
        finally:
            if not first:  # where all is new, as it will hardly be again
                self._not_before = monotonic() + min((thread_time() - began) / PART, LONGEST)

    async def _until_changed(self, most: float = inf) -> None:
        """Until it is another file, or has been gone for a while, or so many seconds have passed. Raises
        SourceError where it is never at rest."""
        await asyncio.sleep(max(LOOK, self._not_before - monotonic()))
        file, missed, end = self._file, 0, monotonic() + most
        while monotonic() < end or file.restless:
            if await asyncio.to_thread(file.has_changed) or file.replaced >= REPLACED:
                return
            missed = 0 if file.there else missed + 1
            if missed >= GONE and file.was_there:
                return
            if file.restless and file.restless % RESTLESS == 0:
                self._wrong = True
                raise SourceError(f"{file.path}: {ALWAYS_WRITTEN}", after=0.0)
            await asyncio.sleep(LOOK)


def _must_be_a_file(path: Path) -> None:
    """Raises SourceError where opening it could take for ever. Whether it is there the reader will tell."""
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise SourceError(f"{path}: must be a file, not a pipe, a socket or a device")
