"""How many connections each client has at a listener, so that none takes all the places.

Who has as many as he may is closed at once, without a word: an answer would need a request first, and whoever
means harm would get a place for as long as he can put that off.
"""

from __future__ import annotations

import logging
from time import monotonic

log = logging.getLogger("lb.proxy")

_BETWEEN = 10.0  # seconds between two lines in the log


class Crowd:
    """The clients of one listener, counted by address; IPv6 by /64 (see `client_key`)."""

    def __init__(self, listener: str) -> None:
        self._listener = listener
        self._connections: dict[str, int] = {}
        self._turned_away = 0  # since the last line in the log
        self._quiet_until = 0.0

    def __len__(self) -> int:
        return len(self._connections)

    def enter(self, key: str, most: int) -> bool:
        """Counts one more connection of a client, if it may have it."""
        count = self._connections.get(key, 0)
        if count >= most:
            self._tell(key, most)
            return False
        self._connections[key] = count + 1
        return True

    def leave(self, key: str) -> None:
        left = self._connections.pop(key) - 1
        if left:
            self._connections[key] = left

    def _tell(self, key: str, most: int) -> None:
        """Not for each of them: that would be work for the log whenever somebody wants it."""
        self._turned_away += 1
        now = monotonic()
        if now >= self._quiet_until:
            log.warning(
                "listener %s: %s has %d connections, and gets no more; closed at once since the last word of "
                "it: %d",
                self._listener,
                key,
                most,
                self._turned_away,
            )
            self._turned_away = 0
            self._quiet_until = now + _BETWEEN
