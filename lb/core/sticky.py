"""Sticky sessions: a cookie of ours brings a client back to the backend that served it first.

Its value is a keyed hash (HMAC-SHA-256, RFC 2104) of the backend's ID, cut to 120 bits: it says nothing of
addresses to who doesn't have the secret, nobody else can make one, and any number of balancers with the same
secret agree, over restarts too. What isn't the hash of a backend that is here is as good as no cookie.

The client sends it back with each request (RFC 6265, section 4.2). It is taken out before that goes on.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence

from lb.core.affinity import Key, KeyReader
from lb.core.backend import Backend
from lb.core.message import Request
from lb.core.rules import StickyRules

BITS = 120
"""Of the hash: so many that nobody finds another one by trying. A multiple of 24 needs no padding."""

FOUND_BY = 6
"""Characters of the value that it is looked up by. The rest is compared in constant time."""


class Sticky:
    """The cookie of one pool."""

    def __init__(self, rules: StickyRules, pool: str) -> None:
        self.rules = rules
        self.reason = f"its cookie {rules.cookie} names it"
        self._name = rules.cookie.encode()
        self._pool = pool
        self._tokens: dict[Backend, bytes] = {}
        self._owners: dict[bytes, list[tuple[bytes, Backend]]] = {}  # by the first characters

    def learn(self, joined: Iterable[Backend], left: Iterable[Backend] = ()) -> None:
        """These are backends of the pool from now on, whether they serve or not, and those no longer."""
        for backend in left:
            token = self._tokens.pop(backend, b"")
            owners = [each for each in self._owners.pop(token[:FOUND_BY], ()) if each[1] is not backend]
            if owners:
                self._owners[token[:FOUND_BY]] = owners
        for backend in joined:
            token = self._tokens[backend] = self._token(backend)
            self._owners.setdefault(token[:FOUND_BY], []).append((token, backend))

    def _token(self, backend: Backend) -> bytes:
        text = f"{self._pool}\0{backend.id}".encode()
        return urlsafe_b64encode(hmac.digest(self.rules.secret, text, "sha256")[: BITS // 8])

    def reader(self, key_of: KeyReader | None) -> KeyReader:
        """What takes the cookie out of a request, and reads the policy's own key, where it goes by one."""

        def read(request: Request, client: str) -> bytes:
            value = self._take(request)
            key = b"" if key_of is None else key_of(request, client)
            stuck = self.owner(value) if value else None
            if stuck is None:
                return key
            if not isinstance(key, Key):
                key = Key(key)
            key.stuck = stuck
            return key

        return read

    def owner(self, value: bytes) -> Backend | None:
        """Whose token this is; None where it is nobody's."""
        for token, backend in self._owners.get(value[:FOUND_BY], ()):
            if hmac.compare_digest(token, value):
                return backend
        return None

    def _take(self, request: Request) -> bytes:
        """The cookie's value, empty where there is none. It is taken out, be it good or not."""
        found = b""
        for place in range(len(request.lines) - 1, 0, -1):
            field, _, value = request.lines[place].partition(b":")
            if self._name not in value or field.lower() != b"cookie":
                continue
            pairs = [pair.strip(b" \t") for pair in value.split(b";")]
            ours = [pair for pair in pairs if pair.partition(b"=")[0].rstrip(b" \t") == self._name]
            if not ours:
                continue
            found = ours[0].partition(b"=")[2].strip(b' \t"') or found
            others = [pair for pair in pairs if pair and pair not in ours]
            if others:
                request.lines[place] = field + b": " + b"; ".join(others)
            else:
                del request.lines[place]
        return found

    def field(self, request_key: bytes, backend: Backend, retried: bool) -> bytes:
        """The line to add to the answer of this backend, with a line end in front; empty where the client's
        cookie is as good as before.

        One whose backend is only full for the moment stays. One whose backend has failed the request, or
        serves no more, makes way for another.
        """
        stuck = request_key.stuck if isinstance(request_key, Key) else None
        if stuck is backend or (stuck is not None and not retried and serves_stuck(stuck)):
            return b""
        token = self._tokens.get(backend)
        if token is None:  # it has left meanwhile
            return b""
        return b"\r\nSet-Cookie: " + self._name + b"=" + token + self.rules.attributes.encode()


def serves_stuck(backend: Backend) -> bool:
    """Whether requests whose cookie names it may go there: as long as it serves, and while it drains."""
    if backend.candidate_of is not None:
        return True
    ejection = backend.ejection
    return (
        backend.drains and backend.healthy and backend.configured_weight > 0
        and (ejection is None or not ejection.closed)
    )  # fmt: skip


def stuck_to(request: Request | None, tried: Sequence[Backend]) -> Backend | None:
    """The backend that the request's cookie names, where that may serve it."""
    key = b"" if request is None else request.key
    stuck = key.stuck if isinstance(key, Key) else None
    return stuck if stuck is not None and stuck not in tried and serves_stuck(stuck) else None
