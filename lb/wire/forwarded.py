"""The Forwarded field (RFC 7239), read from its right end and written.

    Forwarded: for=203.0.113.7;host=a.example;proto=https, for="[2001:db8::17]:4711"

Each proxy adds an element at the right. So the right end is by the proxy that we know, and anything left of
what our proxies wrote is anybody's invention. Read from the left, an open quote in there could swallow what
was added behind it; read from the right, it changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from lb.core.identity import Proxies, node_address

_TRIES: Final = 8
"""A comma within quotes is no border: so many of them are looked past before the element counts as broken."""

# Of section 4, and besides what some write without the quotes that it wants: addresses of IPv6, ports.
_pair: Final = re.compile(
    rb"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:"
    rb"\"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*)\""
    rb"|([!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]+)"
    rb")[ \t]*(?:;|\Z)"
)
_escaped: Final = re.compile(rb"\\(.)", re.DOTALL)
_token: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_quotable: Final = re.compile(rb"[\t -~\x80-\xff]*").fullmatch

Element = dict[bytes, bytes]
"""The parameters of one element: their names in lower case, their values without quotes."""


def parse_element(text: bytes) -> Element | None:
    """The parameters of one element; None where it isn't well-formed, or has one of them twice."""
    found: Element = {}
    place = 0
    while place < len(text):
        match = _pair.match(text, place)
        if match is None:
            return None
        name, quoted, plain = match[1].lower(), match[2], match[3]
        if name in found:
            return None
        found[name] = _escaped.sub(rb"\1", quoted) if quoted is not None else plain
        place = match.end()
    return found or None


def elements_from_right(value: bytes) -> Iterator[Element]:
    """The elements, the last one first, up to the first one that is broken."""
    end = len(value)
    while end >= 0:
        start = end
        element = None
        for _ in range(_TRIES):
            start = value.rfind(b",", 0, start)
            element = parse_element(value[start + 1 : end].strip(b" \t"))
            if element is not None or start < 0:
                break
        if element is None:
            return
        yield element
        end = start


class Believed:
    """What trusted proxies say of a request: its client, and how that came to the first of them."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.proto = b""
        self.host = b""
        self.nodes: list[bytes] = []  # the addresses that were believed, from the client on


def believed(peer: str, value: bytes, proxies: Proxies) -> Believed:
    """The client by a Forwarded field that `peer`, a trusted proxy, has brought: the rightmost `for` that is
    no trusted proxy. Scheme and host are those of the same element, whose author is trusted."""
    found = Believed(peer)
    for element in elements_from_right(value):
        found.proto = element.get(b"proto", b"").lower()
        found.host = element.get(b"host", b"")
        address = node_address(element.get(b"for", b"").decode("latin-1"))
        if not address:
            break
        found.client = address
        found.nodes.insert(0, address.encode())
        if not proxies.trusts(address):
            break
    return found


def node(address: str) -> bytes:
    """An address as `for` has it (section 6): IPv6 in brackets and quotes, what is none as `unknown`."""
    if ":" in address and address != "unix:":
        return b'"[' + address.encode() + b']"'
    return address.encode() if address[:1].isdigit() else b"unknown"


def element(client: str, host: bytes, proto: bytes) -> bytes:
    """What we add: for whom we forward, the host that was asked for, and by which scheme."""
    written = b"for=" + node(client)
    if host and _quotable(host):
        written += b";host=" + (host if _token(host) else _quoted(host))
    return written + b";proto=" + proto


def _quoted(text: bytes) -> bytes:
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
