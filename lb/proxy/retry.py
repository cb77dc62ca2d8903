"""Further attempts of an exchange: whether one may hide a failure, and where it goes."""

from __future__ import annotations

from collections.abc import Sequence

from lb.core.backend import Backend
from lb.core.failure import IDEMPOTENT, NEVER, RESET, Failure
from lb.core.message import IDEMPOTENT_METHODS, Request
from lb.core.route import Target
from lb.proxy.attempt import Attempt
from lb.proxy.upload import Upload


class Retry:
    """What an exchange has left of its right to try again. Made when its first attempt has failed.

    The request has to be all here still, and the pool's budget has to allow it.
    """

    __slots__ = ("_made", "_redialled", "_request", "_target", "_upload")

    def __init__(self, target: Target, request: Request, upload: Upload | None) -> None:
        self._target = target
        self._request = request
        self._upload = upload
        self._made = 0  # attempts that counted
        self._redialled = False

    def after_failure(self, attempts: Sequence[Attempt], failure: Failure, now: float) -> Backend | None:
        """Who gets the request next, after its last attempt has failed. The same one, over a new connection,
        where the old one was stale."""
        failed, pool = attempts[-1], self._target.pool
        if not self._repeatable(failed, failure):
            return None
        if failure is RESET and failed.reused and not self._redialled:
            # Most likely it was closed just as we wrote on it (RFC 9112, section 9.3.1). That says nothing of
            # the backend, and is no retry.
            self._redialled = True
            if failed.backend.candidate_of is pool:
                return failed.backend
        return self._another(attempts, now, True)

    def after_answer(self, attempts: Sequence[Attempt], status: int, now: float) -> Backend | None:
        """Who may give a better answer than this one, of a backend that can't serve now."""
        retries, upload = self._target.retries, self._upload
        if retries is None or status not in retries.statuses or (upload is not None and upload.lost):
            return None
        if self._request.method not in IDEMPOTENT_METHODS:
            return None
        return self._another(attempts, now, False)

    def _repeatable(self, failed: Attempt, failure: Failure) -> bool:
        """Whether a second time does no harm: nothing was sent, or the method is idempotent, or the backend
        has got none of the body that it had to wait for."""
        upload = self._upload
        if failure.retry == NEVER or (upload is not None and upload.lost):
            return False
        if failure.retry != IDEMPOTENT or self._request.method in IDEMPOTENT_METHODS:
            return True
        return failure is RESET and failed.reused and self._request.length != 0 and not failed.sent

    def _another(self, attempts: Sequence[Attempt], now: float, tried_too: bool) -> Backend | None:
        """Another backend, where the rules and the budget allow it; one that was tried only where no other is
        eligible, if at all."""
        pool, retries = self._target.pool, self._target.retries
        if retries is None or pool.budget is None or self._made >= retries.attempts:
            return None
        tried = [attempt.backend for attempt in attempts]
        backend = pool.pick(self._request, tried, waited=True)
        if not isinstance(backend, Backend) or (backend in tried and not tried_too):
            return None
        if not pool.budget.take(now):
            return None
        self._made += 1
        pool.retried(tried[-1])
        return backend
