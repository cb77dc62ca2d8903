"""Heads of messages as they travel from floor to floor. Bytes stay bytes."""

from dataclasses import dataclass
from typing import Final

CHUNKED: Final = -1  # the body's length shows only at its end: chunked, RFC 9112, section 7.1
UNTIL_CLOSE: Final = -2  # a response body that ends when the connection does: RFC 9112, section 6.3

IDEMPOTENT_METHODS: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""RFC 9110, section 9.2.2."""


class Request:
    """A request's head, judged and stripped of what ends at this hop.

    `lines` are the lines to pass on, the request line first and then the fields, mostly as they came
    (`b"Accept: */*"`). `length` is the body's: a count of bytes, or `CHUNKED`. What the client says of
    itself in X-Forwarded-* and as a request ID is only there where the client is trusted.
    """

    expect_continue = False
    takes_trailers = False  # whether the client has said so: RFC 9110, section 10.1.4
    max_forwards: bytes | None = None  # of OPTIONS: RFC 9110, section 7.6.2
    named: tuple[bytes, ...] = ()  # fields that end here because Connection names them, in lower case
    upgrade = b""  # the protocols that the client would switch to
    given_id = b""
    forwarded_for = b""
    forwarded_host = b""
    forwarded_proto = b""  # from a trusted proxy, and then http, https or nothing
    forwarded = b""  # the Forwarded field as it came
    scheme = b"http"  # by which the client asks; only right where a route goes by it
    key = b""  # what it has in common with others that are to go to the same backend; see lb.core.affinity

    def __init__(self, method: bytes, target: bytes, lines: list[bytes]) -> None:
        self.method = method
        self.target = target
        self.lines = lines
        self.host = b""
        self.length = 0
        self.http10 = False
        self.keep_alive = True
        self.via = b""

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    def scheme_over(self, scheme: bytes) -> bytes:
        """http or https, by which the client asks: what a trusted proxy says, or that of the connection."""
        said = self.forwarded_proto.lower()
        return said if said in (b"http", b"https") else scheme

    def header(self, name: bytes) -> bytes | None:
        """The value of a field that is passed on, by lower-case name; several are joined with a comma."""
        if name == b"host":
            return self.host
        values = [
            value.strip(b" \t")
            for field, _, value in [line.partition(b":") for line in self.lines[1:]]
            if field.lower() == name
        ]
        return b", ".join(values) if values else None


class Response:
    """A response's head, judged and stripped of what ends at this hop: the status line, then the fields."""

    __slots__ = ("dated", "keep_alive", "length", "lines", "named", "status", "upgrade")

    def __init__(self, status: int, lines: list[bytes], length: int, keep_alive: bool = True) -> None:
        self.status = status
        self.lines = lines
        self.length = length
        self.keep_alive = keep_alive
        self.dated = True  # whether it says when it was made
        self.named: tuple[
            bytes, ...
        ] = ()  # fields that end here because Connection names them, in lower case
        self.upgrade = b""  # the protocol that it switches to, where it is a 101


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a request a listener takes: bytes, bytes, a count, bytes (None: any size)."""

    request_line: int = 8192
    header_bytes: int = 65536
    header_count: int = 128
    body: int | None = None
