"""Who waits until a backend is free, in the order they came."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol


class Waiter(Protocol):
    """An exchange that there is no free backend for yet."""

    def on_turn(self) -> None:
        """A backend is free, or none is left to wait for: pick now. It waits no longer."""


class Waiting:
    """At most so many waiters, first come, first served. Joining, leaving and being next are O(1)."""

    __slots__ = ("most", "waiters")

    def __init__(self, most: int) -> None:
        self.most = most
        # An ordered dict, since finding the first key of a plain one costs more with each that was taken out.
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.waiters)

    def join(self, waiter: Waiter, first: bool = False) -> bool:
        """Waits behind all others; false if there is no place left. Who waits already keeps its place.

        Who had its turn in vain waits on as the `first`, and always finds a place.
        """
        waiters = self.waiters
        if waiter in waiters:
            return True
        if len(waiters) >= self.most and not first:
            return False
        waiters[waiter] = None
        if first:
            waiters.move_to_end(waiter, last=False)
        return True

    def leave(self, waiter: Waiter) -> None:
        """Waits no longer. Nothing happens if it didn't."""
        self.waiters.pop(waiter, None)

    def next(self) -> Waiter:
        """Takes the first one out. Raises KeyError where nobody waits."""
        return self.waiters.popitem(last=False)[0]
