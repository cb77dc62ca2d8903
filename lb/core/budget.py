"""How many retries a pool may make: a share of its traffic, so that they never double an outage.

After Finagle's RetryBudget (https://twitter.github.io/finagle/guide/Clients.html#retry-budget): a limit per
request still lets every request of a failing pool be sent twice; a budget over all of them does not.
"""

from __future__ import annotations

from lb.core.clock import Clock


class RetryBudget:
    """Retries of the last `window` seconds: at most `share` of the requests in it, or `least` a second.

    Counted by whole seconds of the clock. A time that lies a little back is as good as now.
    """

    __slots__ = ("_at", "_requests", "_retries", "_second", "least", "share", "window")

    def __init__(self, clock: Clock, share: float = 0.2, least: int = 3, window: int = 10) -> None:
        self.share = share
        self.least = least
        self.window = window
        self._second = int(clock.time())
        self._at = 0  # where in the lists the present second is
        self._requests = [0] * window
        self._retries = [0] * window

    def on_request(self, now: float) -> None:
        """An exchange begins."""
        if now >= self._second + 1:
            self._move_on(int(now))
        self._requests[self._at] += 1

    def take(self, now: float) -> bool:
        """Whether one more retry may be made now. It is counted if so."""
        if now >= self._second + 1:
            self._move_on(int(now))
        if sum(self._retries) >= max(self.share * sum(self._requests), self.least * self.window):
            return False
        self._retries[self._at] += 1
        return True

    def _move_on(self, second: int) -> None:
        for _ in range(min(second - self._second, self.window)):
            self._at = (self._at + 1) % self.window
            self._requests[self._at] = self._retries[self._at] = 0
        self._second = second
