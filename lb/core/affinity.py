"""What makes requests belong together: the key by which some policies send them to the same backend.

read = key_reader("cookie:session")
request.key = read(request, client)     # b"" where the request has none
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from lb.core.backend import Backend
from lb.core.message import Request

KeyReader = Callable[[Request, str], bytes]
"""Takes a request and its client's address."""


class Key(bytes):
    """A request's key together with what else was read on the way to it.

    `shadow` is the key by which a shadow policy goes, `stuck` the backend that the request's cookie names.
    """

    shadow: bytes = b""
    stuck: Backend | None = None


FORMS: Final = "header:NAME, cookie:NAME, client, path or query:NAME"

_NAMES: Final = {
    "header": re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),  # a token: RFC 9110, section 5.6.2
    "cookie": re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),  # RFC 6265, section 4.1.1
    "query": re.compile(r"[^\s&=#?]+"),
}


def key_reader(written: str) -> KeyReader:
    """The reader of such a key. Raises ValueError where it isn't one."""
    if written == "client":
        return lambda request, client: client.encode()
    if written == "path":
        return lambda request, client: request.path
    kind, colon, name = written.partition(":")
    pattern = _NAMES.get(kind) if colon else None
    if pattern is None:
        raise ValueError(f"must be {FORMS}, not '{written}'")
    if not pattern.fullmatch(name):
        raise ValueError(f"must have the name of a {kind} behind {kind}:, not '{name}'")
    return _OF[kind](name.encode())


def _header(name: bytes) -> KeyReader:
    lowered = name.lower()
    return lambda request, client: request.header(lowered) or b""


def _cookie(name: bytes) -> KeyReader:
    def read(request: Request, client: str) -> bytes:
        for line in request.lines[1:]:
            field, _, value = line.partition(b":")
            if field.lower() == b"cookie":
                for pair in value.split(b";"):
                    found, equals, content = pair.partition(b"=")
                    if equals and found.strip(b" \t") == name:
                        return content.strip(b" \t")
        return b""

    return read


def _query(name: bytes) -> KeyReader:
    def read(request: Request, client: str) -> bytes:
        for pair in request.target.partition(b"?")[2].split(b"&"):
            found, _, content = pair.partition(b"=")
            if found == name:
                return content
        return b""

    return read


_OF: Final = {"header": _header, "cookie": _cookie, "query": _query}
