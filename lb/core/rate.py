"""How often each client may ask: token buckets, in bounded memory.

A bucket holds `burst` tokens and gains `rate` a second; a request takes one. Kept as the generic cell rate
algorithm does (ITU-T I.371, annex A): one number per key, the time at which its bucket will be full again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class RateLimit:
    """So many requests a second for each key, and a burst of so many at once. O(1), at most `most_keys` kept.

    A full bucket tells nothing, so it may be forgotten. When there are more keys than places and none is
    full, the newcomer takes over the bucket that was longest unused **as it stands**, and not a full one.
    So who comes from ever new addresses gains no burst by pushing others out, however many he has: all
    keys together never pass more than `most_keys` buckets would. Nor does he reach the bucket of somebody
    who keeps asking: he would need `most_keys` other addresses between two of its requests. What he can do
    is make newcomers, and who was away, start with fewer tokens than a burst. They gain `rate` as all do.
    """

    __slots__ = ("_full_at", "_patience", "_spacing", "burst", "most_keys", "rate")

    def __init__(self, rate: float, burst: int, most_keys: int = 65536) -> None:
        if rate <= 0 or burst < 1 or most_keys < 1:
            raise ValueError("rate, burst and most_keys must be positive")
        self.rate = rate
        self.burst = burst
        self.most_keys = most_keys
        self._spacing = 1.0 / rate  # seconds that a token takes to come
        # How far from full a bucket may be and still have a token; a billionth is for floats that add up.
        self._patience = (burst - 1 + 1e-9) * self._spacing
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()  # by key, longest unused first

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: Hashable, now: float) -> float:
        """0.0 if the request may pass, else the seconds until there is a token. `now` is in seconds."""
        buckets = self._full_at
        full_at = buckets.get(key)
        if full_at is None:
            full_at = self._make_room(now)
            buckets[key] = full_at
        else:
            buckets.move_to_end(key)
        full_at = max(full_at, now)
        wait = full_at - now - self._patience
        if wait > 0.0:
            return wait
        buckets[key] = full_at + self._spacing
        return 0.0

    def wait(self, key: Hashable, now: float) -> float:
        """The seconds until there is a token, 0.0 if there is one. Takes none."""
        full_at = self._full_at.get(key)
        return 0.0 if full_at is None else max(0.0, full_at - now - self._patience)

    def _make_room(self, now: float) -> float:
        """Forgets up to two that are full, so that the table shrinks again; what a newcomer starts from."""
        buckets = self._full_at
        for _ in range(2):
            if not buckets or buckets[next(iter(buckets))] > now:
                break
            buckets.popitem(last=False)
        return now if len(buckets) < self.most_keys else buckets.popitem(last=False)[1]
