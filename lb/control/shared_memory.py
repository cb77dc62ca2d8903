"""The memory of the load table: made by the supervisor, mapped by the workers that it hands it to.

It has no name in any file system, and goes with the last process that holds it. Pages that no backend has a
place on take no memory, so there is no need for it to grow: it is made large enough at once.
"""

from __future__ import annotations

import mmap
import os

from lb.core.load_table import CELL, LoadTable

PLACES = 16 * 1024
"""Backends of all pools together, those included that have left and still answer. 64 KiB a worker."""


class SharedTable:
    """The table together with its memory, which `descriptor` hands on to other processes."""

    def __init__(self, descriptor: int, rows: int, row: int = -1) -> None:
        """Maps what a supervisor has made. Takes the descriptor over."""
        self.descriptor = descriptor
        self.rows = rows
        self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self._view = memoryview(self._memory)
        self.table = LoadTable(self._view, rows, row)

    @classmethod
    def make(cls, rows: int, places: int = PLACES) -> SharedTable:
        """A new one, all at 0, seen from no row."""
        descriptor = os.memfd_create("lb-load", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, rows * places * CELL)
        return cls(descriptor, rows)

    def close(self) -> None:
        """Unmaps it here; other processes keep it."""
        self.table.release()
        self._view.release()
        self._memory.close()
        os.close(self.descriptor)
