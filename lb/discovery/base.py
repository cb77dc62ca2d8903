"""A source: where a pool's backends come from at run time.

A source knows how to ask, and nothing else. What holds for all of them is a `Watch`'s business: to keep the
last set, to try again, to judge an empty answer, to tell how it went. What several sources of a pool name
together is put together by `Members`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from time import monotonic
from typing import Protocol

from lb.core.backend import BackendSpec

PART = 0.01  # of the processor's time at most goes into passing changes on
SAVED = 1.0  # seconds of which that part can be saved up, for changes that come together after a quiet time


class Pace:
    """How much of the processor's time goes into passing changes on: hardly any for a few backends, some
    milliseconds each time for thousands.

    Who has been quiet may pass on some changes one upon another, so that of several backends that come
    together the last one waits hardly longer than the first.
    """

    def __init__(self) -> None:
        self._due = 0.0

    def rest_after(self, took: float) -> float:
        """How long to gather changes, in seconds, after passing one on took so many of this thread's time."""
        now = monotonic()
        self._due = max(self._due, now - SAVED) + took / PART
        return max(0.0, self._due - now)


class SourceError(Exception):
    """Why a source has nothing to say, in words for people: they go to the log and the admin API as they are.

    `after` is when to ask again, in seconds, where the source knows that better than a backoff does.
    """

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Source(Protocol):
    """Where backends come from."""

    def watch(self) -> AsyncIterator[Sequence[BackendSpec]]:
        """Sets of backends, each of them whole: the first one as soon as it is known, then one after each
        change. One that is equal to the last says that it has been asked for and still holds.

        An empty set is an answer: nobody is there. Who got no answer raises SourceError, and is watched
        anew after a while, from the beginning. Bounded in time: who waits for an answer gives up at some
        point. A set comes in an order that doesn't depend on chance, each ID once, and a large one with the
        very same specs for what hasn't changed: comparing it costs little then.

        It is closed (`aclose`) at any `await` where the source is wanted no longer.
        """
        ...
