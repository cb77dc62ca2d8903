"""A second policy beside the live one: asked the same, told the same, and never heeded.

It stands in the live one's place, so that a pool without a shadow pays nothing for it. What the shadow does
costs no request: what it raises is counted and logged once.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping, Sequence

from lb.core.affinity import Key, KeyReader
from lb.core.backend import Backend
from lb.core.failure import Failure
from lb.core.message import Request
from lb.core.policy import Hook, Policy, hook_of, name_of

log = logging.getLogger("lb.pool")

SAME, OTHER, FAILED = "same", "other", "failed"


class Shadowed:
    """The live policy with its shadow. `picks` counts how often that picked the `same` one, an `other`, or
    `failed`, where it was asked or told. `pool` is the one that owns the backends."""

    def __init__(self, live: Policy, shadow: Policy, pool: object, picks: MutableMapping[str, int]) -> None:
        self.live = live
        self.shadow = shadow
        self.picks = picks
        self.choice: Backend | None = None  # the shadow's last pick; None where it failed
        self.weighted = live.weighted
        self.key_of = _both(live.key_of, shadow.key_of)
        self.reason = live.reason
        self.looked: Sequence[Backend] = ()
        self.scores: Sequence[float] = ()
        self._pool = pool
        self._fleet: Sequence[Backend] = ()
        self._complained = False
        self._two_keys = live.key_of is not None and shadow.key_of is not None
        self._live_start, self._live_end = hook_of(live, "on_start"), hook_of(live, "on_end")
        self._start, self._end = hook_of(shadow, "on_start"), hook_of(shadow, "on_end")
        if self._live_start is None and self._start is None:
            self.on_start = _nothing  # type: ignore[assignment, method-assign]
        if self._live_end is None and self._end is None:
            self.on_end = _nothing  # type: ignore[assignment, method-assign]

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        """The live one's pick. The shadow is asked afterwards, about the same."""
        live = self.live
        self.choice = None
        picked = live.pick(request, backends)
        self.reason, self.looked, self.scores = live.reason, live.looked, live.scores
        try:
            choice = self._ask(request, backends)
            if choice.candidate_of is not self._pool or (
                backends is not self._fleet and choice not in backends
            ):
                raise LookupError(f"it picked {choice!r}, which is not eligible")
        except Exception as error:  # noqa: BLE001 - a user's policy may raise anything; requests go on
            self._failed(error)
            return picked
        self.choice = choice
        self._count(SAME if choice is picked else OTHER)
        return picked

    def _ask(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        """The shadow's pick, by its own key where both go by one."""
        if request is None or not self._two_keys:
            return self.shadow.pick(request, backends)
        key = request.key
        request.key = key.shadow if isinstance(key, Key) else b""
        try:
            return self.shadow.pick(request, backends)
        finally:
            request.key = key

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self._fleet = backends
        self._tell(self.shadow.rebuild, backends)
        self.live.rebuild(backends)

    def on_start(self, backend: Backend) -> None:
        self.shadow_start(backend)
        if self._live_start is not None:
            self._live_start(backend)

    def shadow_start(self, backend: Backend) -> None:
        """Tells the shadow alone, of what has begun before it came."""
        if self._start is not None:
            self._tell(self._start, backend)

    def on_end(self, backend: Backend, started: float, failure: Failure | None) -> None:
        if self._end is not None:
            self._tell(self._end, backend, started, failure)
        if self._live_end is not None:
            self._live_end(backend, started, failure)

    def _tell(self, hook: Hook, *what: object) -> None:
        try:
            hook(*what)
        except Exception as error:  # noqa: BLE001 - see `pick`
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Counted each time, logged the first time."""
        if not self._complained:
            name = name_of(self.shadow)
            log.error(
                "the shadow policy %s failed; requests go on without it: %r", name, error, exc_info=error
            )
        self._complained = True
        self._count(FAILED)

    def _count(self, result: str) -> None:
        self.picks[result] = self.picks.get(result, 0) + 1


def _both(live: KeyReader | None, shadow: KeyReader | None) -> KeyReader | None:
    """What reads the keys of both."""
    if live is None or shadow is None:
        return live or shadow

    def read(request: Request, client: str) -> Key:
        key = Key(live(request, client))
        key.shadow = shadow(request, client)
        return key

    return read


def _nothing(*what: object) -> None:
    """Neither of the two wants to know."""


_nothing.does_nothing = True  # type: ignore[attr-defined]
