"""One source that is being watched: its last set, whatever happens to it, and how it does."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from lb.core.backend import BackendSpec
from lb.core.source import SourceState
from lb.discovery.base import Source, SourceError

log = logging.getLogger("lb.discovery")

FIRST_WAIT = 0.5  # seconds at most until a source that failed is asked again, doubled with each failure
LONGEST_WAIT = 4.0
"""Up to this. Backends that drain take requests for some seconds more (5 in deploy/kubernetes): whoever comes
back after an outage, and names other ones at once, is to be heard before these seconds are over."""
STEADY = 10.0  # seconds after which a watch was a good one, and the next failure is the first again


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What is believed of a source's answers.

    An empty answer after a full one changes nothing with `keep_empty`. Without an answer that is believed,
    the last set holds for `max_stale` seconds (0: for ever).
    """

    keep_empty: bool = True
    max_stale: float = 0.0


class Watch:
    """Asks one source for as long as it runs. `on_set` is called when there is another set.

    `key` and `zone` are what makes it the same source after a reload. Where a source fails it is asked
    again, after a wait that grows and is drawn by chance (full jitter): not all balancers come at once to one
    that has just recovered.
    """

    def __init__(
        self,
        pool: str,
        source: Source,
        state: SourceState,
        beliefs: Beliefs,
        key: object = None,
        rng: random.Random | None = None,
        zone: str = "",
    ) -> None:
        self.key = key
        self.zone = zone
        self.state = state
        self.specs: tuple[BackendSpec, ...] = ()
        self.on_set: Callable[[], object] = lambda: None
        self.settled = asyncio.Event()  # it has answered or failed once
        self.answered = asyncio.Event()  # it has answered once
        self._pool = pool
        self._source = source
        self._beliefs = beliefs
        self._rng = rng or random.Random()
        self._task: asyncio.Task[None] | None = None
        self._stale: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins, within a running event loop."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends it. Its last set stays readable."""
        self.on_set = lambda: None
        self._forget_staleness()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def inherit(self, specs: tuple[BackendSpec, ...]) -> None:
        """Goes on with what another one has found, until this one knows better."""
        self.specs = specs
        self.state.backends, self.state.known = len(specs), True

    # --- asking ---

    async def _run(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            after = None
            try:
                # An async generator, though the protocol asks for no more than an iterator.
                async with aclosing(cast(Any, self._source.watch())) as sets:
                    async for specs in sets:
                        self._on_answer(tuple(specs))
                self._on_failure("it ended")
            except SourceError as error:
                after = error.after
                self._on_failure(str(error))
            except Exception as error:  # a source's slip must not end the watch for good
                reason = f"{type(error).__name__}: {error}"
                if reason != self.state.error:
                    log.exception("pool %s: source %s failed in an unforeseen way", self._pool, self._called)
                self._on_failure(reason)
            failures = 1 if time.monotonic() - began > STEADY else failures + 1
            if after is None:
                after = self._rng.uniform(0.0, min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures - 1, 16)))
            await asyncio.sleep(after)

    def _on_answer(self, specs: tuple[BackendSpec, ...]) -> None:
        state = self.state
        if not specs and self.specs and self._beliefs.keep_empty:
            state.updates["kept"] += 1
            self._on_trouble("it names no backend, which is not believed (on_empty: keep)")
        else:
            state.updates["success"] += 1
            state.last_success = time.time()
            if state.error:
                log.info("pool %s: source %s answers again", self._pool, self._called)
            state.error = ""
            self._forget_staleness()
            self._take(specs)
        self.answered.set()
        self.settled.set()

    def _on_failure(self, reason: str) -> None:
        self.state.updates["failure"] += 1
        self._on_trouble(reason)
        self.settled.set()

    def _on_trouble(self, reason: str) -> None:
        state = self.state
        state.last_error = time.time()
        if reason != state.error:
            kept = f"; its last {_stays(len(self.specs))}" if self.specs else ""
            log.warning("pool %s: source %s: %s%s", self._pool, self._called, reason, kept)
        state.error = reason
        if self._beliefs.max_stale and self.specs and self._stale is None:
            self._stale = asyncio.get_running_loop().call_later(self._beliefs.max_stale, self._on_stale)

    def _on_stale(self) -> None:
        self._stale = None
        log.error(
            "pool %s: source %s: nothing good for %g s (max_stale): its backends are given up",
            self._pool,
            self._called,
            self._beliefs.max_stale,
        )
        self._take(())

    def _forget_staleness(self) -> None:
        if self._stale is not None:
            self._stale.cancel()
            self._stale = None

    def _take(self, specs: tuple[BackendSpec, ...]) -> None:
        first, self.state.known = not self.state.known, True
        if specs != self.specs or first:
            self.specs = specs
            self.state.backends = len(specs)
            self.on_set()

    @property
    def _called(self) -> str:
        return f"{self.state.name} ({self.state.about})"


def counted(backends: int) -> str:
    """So many backends, in words."""
    return f"{backends} backend" if backends == 1 else f"{backends} backends"


def _stays(backends: int) -> str:
    return "backend stays" if backends == 1 else f"{backends} backends stay"
