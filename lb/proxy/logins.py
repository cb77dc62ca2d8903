"""Checks of passwords, which take too long for the event loop: a few threads do it, and the requests wait.

What it may cost is bounded in three ways: only so many checks wait at a time, a client has only so many of
them at once, and one that is wrong too often has to wait before the next. Requests that bring the same login
share one check, and who has logged in lately needs none.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Final, Protocol

from lb.core.access import BasicAuth, client_key, credentials
from lb.core.failure import INTERNAL, LOGIN_LIMITED, LOGINS_BUSY, UNAUTHORIZED, Failure

log = logging.getLogger("lb.proxy")

THREADS: Final = 2
WAITING: Final = 64  # checks, those under way among them
OF_ONE_CLIENT: Final = 4
_AGAIN: Final = 1.0  # seconds after which it is worth another try


class Waiter(Protocol):
    """Who is told what came of a check: the exchange."""

    def on_login(self, user: str, failure: Failure | None) -> None: ...


class Check:
    """A password that is being checked, and who waits for that."""

    __slots__ = ("auth", "client", "digest", "name", "waiters")

    def __init__(self, auth: BasicAuth, digest: bytes, name: str, client: str) -> None:
        self.auth = auth
        self.digest = digest
        self.name = name
        self.client = client
        self.waiters: list[Waiter] = []


class Verdict:
    """What is to be done with a request: the user's name, or a failure; neither while it has to wait."""

    __slots__ = ("failure", "retry_after", "user")

    def __init__(self, user: str = "", failure: Failure | None = None, retry_after: float = 0.0) -> None:
        self.user = user
        self.failure = failure
        self.retry_after = retry_after


class Logins:
    """The checks of a process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads: ThreadPoolExecutor | None = None  # there are none before somebody logs in
        self._checks: dict[tuple[BasicAuth, bytes], Check] = {}
        self._of_client: dict[str, int] = {}

    def judge(self, auth: BasicAuth, authorization: bytes | None, client: str, waiter: Waiter) -> Verdict:
        """Decides at once where that is possible; else the waiter is told later."""
        found = None if authorization is None else credentials(authorization)
        if found is None:
            return Verdict(failure=UNAUTHORIZED)
        name, password = found
        digest = auth.digest(name, password)
        now = monotonic()
        user = auth.known(digest, now)
        if user:
            return Verdict(user)
        key = client_key(client)
        seconds = auth.failures.wait(key, now)
        if seconds:
            return Verdict(failure=LOGIN_LIMITED, retry_after=seconds)
        check = self._checks.get((auth, digest))
        if check is None:
            if self._of_client.get(key, 0) >= OF_ONE_CLIENT:
                return Verdict(failure=LOGIN_LIMITED, retry_after=_AGAIN)
            if len(self._checks) >= WAITING:
                return Verdict(failure=LOGINS_BUSY, retry_after=_AGAIN)
            check = Check(auth, digest, name, key)
            self._begin(check, password)
        check.waiters.append(waiter)
        return Verdict()

    def _begin(self, check: Check, password: bytes) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), "lb-logins")
        self._checks[check.auth, check.digest] = check
        self._of_client[check.client] = self._of_client.get(check.client, 0) + 1
        future = self._threads.submit(check.auth.verify, check.name, password)
        future.add_done_callback(lambda done: self._tell(check, done))

    def _tell(self, check: Check, done: Future[bool]) -> None:
        """From the thread."""
        if not done.cancelled() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_done, check, done)

    def _on_done(self, check: Check, done: Future[bool]) -> None:
        now = monotonic()
        del self._checks[check.auth, check.digest]
        left = self._of_client.pop(check.client) - 1
        if left:
            self._of_client[check.client] = left
        error = done.exception()
        user, failure = "", UNAUTHORIZED
        if error is not None:
            log.error("a password can't be checked: %r", error)
            failure = INTERNAL
        elif done.result():
            check.auth.remember(check.digest, check.name, now)
            user = check.name
        else:
            check.auth.failures.take(check.client, now)
        for waiter in check.waiters:
            try:
                waiter.on_login(user, None if user else failure)
            except Exception:  # the others wait, too
                log.exception("a request could not go on after its login")

    def close(self) -> None:
        """Nobody waits any more."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
