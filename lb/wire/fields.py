"""The law of header fields: what passes, what ends at this hop, and what is judged.

Fields stay the bytes they came as. Each name is looked up once; only the few that matter here are looked at,
the rest passes untouched. Framing is judged on bytes: `int()`, `isdigit()`, `strip()` and `lower()` on text
take signs, underscores, superscripts, no-break spaces and the Kelvin sign for what they are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import AddressValueError, IPv6Address
from typing import Final

PASS: Final = 0
DROP: Final = 1
HOST: Final = 2
LENGTH: Final = 3
CODING: Final = 4
CONNECTION: Final = 5
EXPECT: Final = 6
ID: Final = 7
FORWARDED_FOR: Final = 8
FORWARDED_PROTO: Final = 9
FORWARDED_HOST: Final = 10
FORWARDED: Final = 11
FORWARDED_MORE: Final = 12
VIA: Final = 13
UPGRADE: Final = 14
TE: Final = 15
MAX_FORWARDS: Final = 16
DATE: Final = 17

OWS: Final = b" \t"
REMEMBERED: Final = 4096  # spellings of names, or values: a bound on what an attacker can make us keep
TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"

# Fields of one connection (RFC 9110, section 7.6.1), whether or not Connection names them. HTTP2-Settings:
# an upgrade to h2c is not passed on. Proxy: it would become HTTP_PROXY in a CGI (CVE-2016-5385).
_HOP_BY_HOP = (b"keep-alive", b"proxy-connection", b"http2-settings")

_REQUEST_LAW: Mapping[bytes, int] = {
    **dict.fromkeys(_HOP_BY_HOP, DROP),
    b"proxy": DROP,
    b"te": TE,
    b"max-forwards": MAX_FORWARDS,
    # Only who has verified a certificate may tell of it (RFC 9440, section 4): we do, and nobody before us.
    **dict.fromkeys((b"client-cert", b"client-cert-chain", b"x-client-cert-subject"), DROP),
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"expect": EXPECT,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"x-forwarded-host": FORWARDED_HOST,
    b"forwarded": FORWARDED,
    b"x-real-ip": FORWARDED_MORE,
    b"via": VIA,
    b"upgrade": UPGRADE,
}
_RESPONSE_LAW: Mapping[bytes, int] = {
    **dict.fromkeys(_HOP_BY_HOP, DROP),
    b"te": DROP,
    b"date": DATE,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
}

# What a trailer section may not bring (RFC 9110, section 6.5.1): framing, routing, authentication, request
# modifiers, and whatever speaks of the content as a whole.
_NOT_IN_TRAILERS = frozenset(_REQUEST_LAW) | frozenset(
    b"""
    accept accept-charset accept-encoding accept-language age authorization cache-control content-encoding
    content-range content-type cookie date expires if-match if-modified-since if-none-match if-range
    if-unmodified-since location max-forwards pragma proxy-authenticate proxy-authorization range retry-after
    set-cookie trailer vary warning www-authenticate
    """.split()
)


class Field:
    """What a field line is to us: the rule for its name, and its value (empty where it just passes)."""

    __slots__ = ("rule", "value")

    def __init__(self, rule: int, value: bytes) -> None:
        self.rule = rule
        self.value = value


_PASSES: Final = Field(PASS, b"")

_OURS = (b"x-forwarded-", b"x-request-id", b"x-backend")

_PLAIN: Final = bytes([octet if chr(octet).isalnum() and octet < 128 else 0x2D for octet in range(256)])


def plain(name: bytes) -> bytes:
    """A name (lower-case) as a backend may read it that makes a variable of it.

    CGI and WSGI make `HTTP_X_A` of `X-A` and of `X_A` (RFC 3875, section 4.1.18), and some servers of `X.A`
    or `X!A` too: whatever is no letter and no digit is the same to them.
    """
    return name.translate(_PLAIN)


class Rules:
    """What to do with a field line. Lines come again and again (HPACK lives on it), so each is judged once.

    What is remembered is bounded, and only of fields that are no secret and mostly alike: no cookies, no
    credentials, nothing unknown.

    A name that a backend may take for one of the judged ones (see `plain`) could forge it there, and is
    dropped.
    """

    LINES: Final = 4096  # how many are remembered
    LONGEST: Final = 256  # bytes of a line that is remembered

    def __init__(self, law: Mapping[bytes, int], forwarded: int = PASS) -> None:
        self._law = law
        self._forwarded = forwarded  # the rule for X-Forwarded-* that the law doesn't name
        self.judged: dict[bytes, Field] = {}

    def judge(self, line: bytes) -> Field:
        """What a line is that has not come before."""
        name, _, value = line.partition(b":")
        name = name.lower()
        rule = self._rule(name)
        found = Field(rule, value.strip(OWS)) if rule != PASS else _PASSES
        if len(line) <= self.LONGEST and name in _KEPT:
            if len(self.judged) >= self.LINES:
                self.judged.clear()  # those in use come back at once
            self.judged[line] = found
        return found

    def _rule(self, name: bytes) -> int:
        rule = self._law.get(name, PASS)
        if rule != PASS:
            return rule
        read = plain(name)
        if read != name and read in self._law:
            return DROP
        if not read.startswith(b"x-forwarded-") or self._forwarded == PASS:
            return PASS
        return self._forwarded if read == name else DROP

    def trailer_passes(self, line: bytes) -> bool:
        """Whether a (valid) trailer field may be passed on, under no spelling of a forbidden name.

        What is judged in a header section is forbidden in a trailer section, whatever its rule says.
        """
        name = plain(line.partition(b":")[0].lower())
        return name not in _NOT_IN_TRAILERS and name not in self._law and not name.startswith(_OURS)


_KEPT: Final = frozenset(
    b"""
    accept accept-charset accept-encoding accept-language accept-ranges access-control-allow-headers
    access-control-allow-methods access-control-allow-origin allow alt-svc cache-control connection
    content-encoding content-language content-length content-type date dnt expires host keep-alive pragma
    priority sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site
    sec-fetch-user sec-gpc server strict-transport-security te transfer-encoding upgrade
    upgrade-insecure-requests user-agent vary x-content-type-options x-frame-options x-powered-by
    x-xss-protection
    """.split()
)


def request_rules(id_header: str = "X-Request-ID") -> Rules:
    """The law for requests; the field of the request ID has the name that the configuration gives it.

    X-Forwarded-Port, -Prefix and so on are believed like the others, from trusted proxies only.
    """
    return Rules({**_REQUEST_LAW, id_header.lower().encode(): ID}, FORWARDED_MORE)


def response_rules(*ours: str) -> Rules:
    """The law for responses; `ours` are the fields that we set ourselves and a backend may not."""
    return Rules({**_RESPONSE_LAW, **{name.lower().encode(): DROP for name in ours}})


def members(value: bytes) -> list[bytes]:
    """The members of a comma-separated list, in lower case, empty ones left out (RFC 9110, section 5.6.1)."""
    return [member for item in value.split(b",") if (member := item.strip(OWS).lower())]


_known_options: Final[dict[bytes, tuple[bool | None, tuple[bytes, ...]]]] = {}


def connection_options(value: bytes) -> tuple[bool | None, tuple[bytes, ...]]:
    """What a Connection field says: is the connection kept (None: it says nothing), and fields it names."""
    known = _known_options.get(value)
    if known is None:
        options = members(value)
        keep = False if b"close" in options else (True if b"keep-alive" in options else None)
        known = keep, tuple(option for option in options if option not in (b"close", b"keep-alive"))
        if len(value) <= 64 and len(_known_options) < 256:
            _known_options[value] = known
    return known


def protocols(value: bytes) -> bytes:
    """The protocols of an Upgrade field that may be switched to. Not another HTTP, nor TLS: what was judged
    here would be judged anew there, by other rules (smuggling by h2c)."""
    found = [member for member in members(value) if not member.startswith((b"h2c", b"http/", b"tls/"))]
    return b", ".join(found)


_KEPT_THOUGH_NAMED = frozenset((b"host", b"content-length", b"transfer-encoding"))


def without(lines: list[bytes], names: Iterable[bytes]) -> list[bytes]:
    """Field lines less those of the names (lower-case) that a Connection field listed.

    Naming a field in Connection must not strip the framing or the Host (a known way to smuggle).
    """
    gone = frozenset(names) - _KEPT_THOUGH_NAMED
    return [line for line in lines if line.partition(b":")[0].lower() not in gone]


def content_length(value: bytes) -> bool:
    """Whether this is a length: ASCII digits and nothing else (so `isdigit` on bytes has it), in 60 bits."""
    return value.isdigit() and len(value) <= 18


_reg_name = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+(?::[0-9]{0,5})?").fullmatch
_literal = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::[0-9]{0,5})?").fullmatch
_known_hosts: Final[dict[bytes, bool]] = {}


def valid_host(value: bytes) -> bool:
    """Whether this is `uri-host [ ":" port ]` of RFC 3986, section 3.2.2, with a host that isn't empty."""
    known = _known_hosts.get(value)
    if known is None:
        known = _judge_host(value)
        if len(value) <= 260 and len(_known_hosts) < REMEMBERED:
            _known_hosts[value] = known
    return known


def _judge_host(value: bytes) -> bool:
    if literal := _literal(value):
        try:
            IPv6Address(literal[1].decode())
        except (AddressValueError, ValueError):
            return False
    elif len(value) > 260 or not _reg_name(value):
        return False
    port = value.rpartition(b":")[2] if value[-1:].isdigit() and b":" in value else b""
    return b"]" in port or not port or int(port) <= 65535


_trailer = re.compile(rb"(" + TOKEN + rb"):[^\x00-\x08\x0a-\x1f\x7f]*").fullmatch


def valid_trailer(line: bytes) -> bool:
    """Whether this is a field line: a token, a colon, and no control character but the tab."""
    return _trailer(line) is not None
