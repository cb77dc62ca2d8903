"""How many requests each worker process has in flight at each backend, in memory that all of them share.

A row for each worker, a place in every row for each backend. A worker writes its own row alone and adds up
the others', so that there is nothing to lock: a cell is an aligned 32-bit number, which a processor writes
and reads as one. What is read may be a few nanoseconds old. Rows lie apart, so that writing one costs no
other worker its cache lines.

    row 0   b0 b1 b2 ...        own of worker 0: `set` writes here
    row 1   b0 b1 b2 ...        what `others` of worker 0 adds up
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Hashable

log = logging.getLogger("lb.workers")

CELL = 4  # bytes


class LoadTable:
    """The table, seen from one row. Seen from none (-1), all rows are others: for who only looks on."""

    __slots__ = ("_others", "_own", "_rows", "places", "row")

    def __init__(self, memory: memoryview, rows: int, row: int = -1) -> None:
        self.places = len(memory) // CELL // rows
        self.row = row
        size = self.places * CELL
        self._rows = [memory[each * size : (each + 1) * size].cast("i") for each in range(rows)]
        self._others = [cells for number, cells in enumerate(self._rows) if number != row]
        self._own = self._rows[row] if row >= 0 else memoryview(bytearray(size)).cast("i")

    def set(self, place: int, count: int) -> None:
        """What this process has."""
        self._own[place] = count

    def others(self, place: int) -> int:
        """The sum of all the other processes."""
        count = 0
        for row in self._others:
            count += row[place]
        return count

    def total(self, place: int) -> int:
        """The sum of all processes."""
        return sum(row[place] for row in self._rows)

    def clear(self, row: int) -> None:
        """To be called when the process that wrote this row is dead: what it had in flight is no more."""
        self._rows[row][:] = memoryview(bytes(self.places * CELL)).cast("i")

    def release(self) -> None:
        """Lets go of the memory, which can be unmapped then."""
        for row in self._rows:
            row.release()


class Places:
    """Deals out the places of a table. Who has one keeps it; it is another's only when all rows are 0 there.

    That alone is not enough: a worker that hasn't heard yet that a backend has left may still count on its
    place. So what `leave` gives back is dealt out again after `free`, which is to be called when all workers
    have heard. Who comes back meanwhile gets another place, or its counts would mix with the old ones.
    """

    def __init__(self, table: LoadTable) -> None:
        self.table = table
        self._taken: dict[Hashable, int] = {}
        self._left: list[int] = []
        self._free = deque(range(table.places))  # who was free longest comes first
        self._full = False

    def take(self, key: Hashable) -> int:
        """The place of this key: the one that it has, or a free one; -1 where all are taken.

        A backend without a place is counted by each worker for itself.
        """
        place = self._taken.get(key, -1)
        if place < 0 and self._free:
            place = self._taken[key] = self._free.popleft()
        elif place < 0 and not self._full:
            self._full = True
            log.warning(
                "more than %d backends: of the rest, each worker knows only what it sent there itself",
                self.table.places,
            )
        return place

    def leave(self, key: Hashable) -> None:
        """This key is gone. One that has no place is nobody's business."""
        place = self._taken.pop(key, -1)
        if place >= 0:
            self._left.append(place)

    def left(self) -> list[int]:
        """The places that have been given back and aren't free yet."""
        return list(self._left)

    def free(self, heard: list[int]) -> None:
        """Of these, being what `left` said before all workers were asked, those at 0 may be taken again."""
        for place in heard:
            if place in self._left and not self.table.total(place):
                self._left.remove(place)
                self._free.append(place)
                self._full = False
