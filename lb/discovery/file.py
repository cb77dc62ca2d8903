"""The source `file`: a list of backends in a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from math import inf
from pathlib import Path
from time import monotonic

from lb.core.backend import BackendSpec
from lb.discovery.base import SourceError
from lb.discovery.watched import WatchedFile

LOOK = 0.1  # seconds between two looks; a file that was the same in both is at rest
PART = 0.1  # of the time at most goes into reading a file that always changes
GONE = 5  # looks in a row that don't find it; less is somebody who replaces it
SURE = 15.0  # seconds after which a file that could not be read is read again, changed or not


class FileSource:
    """Reads a file, and again whenever it has changed. `read` makes backends of it, or raises SourceError.

    One that is wrong, because somebody is in the midst of writing it say, is told and changes nothing. It is
    read again as soon as it is another one.
    """

    def __init__(self, path: Path, read: Callable[[Path], Sequence[BackendSpec]]) -> None:
        self._file = WatchedFile(path)
        self._read = read
        self._wrong = False

    async def watch(self) -> AsyncIterator[Sequence[BackendSpec]]:
        # Looking and reading may block for long, on a network's file system say: so not in this thread.
        if self._wrong:
            await self._until_changed(SURE)
        while True:
            self._wrong = True
            began = monotonic()
            try:
                found = await asyncio.to_thread(self._load)
            except SourceError as error:
                raise SourceError(str(error), after=0.0) from error
            self._wrong = False
            yield found
            await asyncio.sleep((monotonic() - began) / PART)
            await self._until_changed()

    def _load(self) -> Sequence[BackendSpec]:
        self._file.reading()
        return self._read(self._file.path)

    async def _until_changed(self, most: float = inf) -> None:
        """Until it is another file, or has been gone for a while, or so many seconds have passed."""
        missed, end = 0, monotonic() + most
        while monotonic() < end:
            if await asyncio.to_thread(self._file.has_changed):
                return
            missed = 0 if self._file.there else missed + 1
            if missed >= GONE and self._file.was_there:
                return
            await asyncio.sleep(LOOK)
