"""Time as the rest of the house sees it."""

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """What `call_later` hands back."""

    def cancel(self) -> object: ...


class Clock(Protocol):
    """Tells the time in seconds and calls back later.

    A running event loop is one; so is the simulator's. Only differences of `time()` mean anything.
    """

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: object) -> Timer: ...
