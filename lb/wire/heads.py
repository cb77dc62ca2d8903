"""Heads of HTTP/1.1 messages, judged (RFC 9112).

llhttp judges every head whole, with no lenient flag, before anything of it is used. Then it is cut into
lines, which are passed on as the bytes they came as. Where llhttp repairs (two spaces in a request line, a
version of 1.7) we refuse, and what it does not look into (Host, the form of the target, the transfer coding)
is judged here.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from lb.core.failure import (
    BAD_FRAMING,
    BAD_HOST,
    BAD_REQUEST,
    BAD_VERSION,
    BODY_TOO_LARGE,
    EXPECTATION_FAILED,
    LOOP,
    METHOD_NOT_ALLOWED,
    UNKNOWN_CODING,
    UNKNOWN_METHOD,
    Failure,
)
from lb.core.message import CHUNKED, UNTIL_CLOSE, Request, Response
from lb.wire.fields import (
    CODING,
    CONNECTION,
    DATE,
    DROP,
    EXPECT,
    FORWARDED,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_MORE,
    FORWARDED_PROTO,
    HOST,
    ID,
    LENGTH,
    MAX_FORWARDS,
    PASS,
    TE,
    TOKEN,
    UPGRADE,
    VIA,
    Rules,
    connection_options,
    content_length,
    members,
    protocols,
    valid_host,
    without,
)

CODING_CHUNKED: Final = b"Transfer-Encoding: chunked"

_version: Final = re.compile(rb"HTTP/[0-9]\.[0-9]").fullmatch
_reason: Final = re.compile(rb"[\t \x21-\x7e\x80-\xff]*").fullmatch
_token: Final = re.compile(TOKEN).fullmatch

line_begun: Final = re.compile(rb"[\x20-\x7e]*\r?").fullmatch
"""Whether these bytes are the beginning of a first line, with nothing in them that no line may have."""

_absolute: Final = re.compile(rb"([Hh][Tt][Tt][Pp][Ss]?)://([^/?#]*)([^#]*)").fullmatch

# RFC 3986, section 3.3: what paths and queries are made of, but for the percent sign. A target of
# nothing else needs no second look: this table leaves it as it is (no target has a space), without a copy.
_PLAIN: Final = b"/?:@!$&'()*+,;=-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ODD_TO_SPACE: Final = bytes([octet if octet in frozenset(_PLAIN) else 0x20 for octet in range(256)])
# And what real clients send besides: browsers leave `|`, `[` and `]` as they are, and in a query more (URL
# Standard, percent-encode sets), where a lone percent sign is common too. All else is refused, as RFC 9112,
# section 3.2 would have it.
_path: Final = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/|\[\]]|%[0-9A-Fa-f]{2})*").fullmatch
_query: Final = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=:@/?%|\[\]\\^`{}]*").fullmatch
_spaced_chunked: Final = re.compile(rb"\r\n(transfer-encoding):[ \t]*chunked[ \t]+\r\n", re.I)
_NOT_SERVED: Final = (b"CONNECT", b"TRACE")
OURSELVES: Final = b" lb"  # as Via names us
_MAX_TURNS: Final = 16  # of one request through balancers: more is one that forwards to itself
_MAX_FIELDS: Final = 1024  # of a response: more is an attack or an accident
_ZERO: Final = 0x30  # the digit
NO_CALLBACKS: Final = object()  # the parser only judges: the lines are cut here


class Answered(Exception):
    """A request that goes no further, since it is addressed to us: RFC 9110, section 7.6.2."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.method)
        self.request = request


class Refused(Exception):
    """A head that is not taken, and why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.name)
        self.failure = failure


def judged(parser: httptools.HttpRequestParser, fresh: bytes, head: bytes) -> None:
    """Lets llhttp judge the fresh bytes of a request's head. Raises Refused."""
    try:
        parser.feed_data(fresh)
    except httptools.HttpParserUpgrade:
        pass  # an offer that we don't take up; the head itself is good
    except httptools.HttpParserInvalidMethodError:
        method = head.partition(b" ")[0]
        known = _token(method) and not head.startswith(b"PRI * HTTP/2")
        raise Refused(UNKNOWN_METHOD if known else BAD_REQUEST) from None
    except httptools.HttpParserError as error:
        if _only_space_after_chunked(error, head):
            return
        raise Refused(BAD_VERSION if str(error) == "Invalid HTTP version" else BAD_REQUEST) from None


def _only_space_after_chunked(error: Exception, head: bytes) -> bool:
    """llhttp refuses white space behind `chunked`, which RFC 9112, section 5 allows around any value.

    Only then the head is judged once more without it, and everything else in it has to stand.
    """
    if "Transfer-Encoding" not in str(error) or not _spaced_chunked.search(head):
        return False
    plain = _spaced_chunked.sub(rb"\r\n\1: chunked\r\n", head)
    judged(httptools.HttpRequestParser(NO_CALLBACKS), plain, plain)
    return True


def parse_request(
    lines: list[bytes], rules: Rules, trusted: bool, max_body: int | None, secure: bool = False
) -> Request:
    """A request from the lines of a head that llhttp has found well-formed. Raises Refused, and Answered.

    `secure` is whether it came over TLS.

    The request gets the lines that are passed on, the request line first.
    """
    try:
        method, target, version = lines[0].split(b" ")
    except ValueError:  # not two spaces
        raise Refused(BAD_REQUEST) from None
    passed = [lines[0]]
    request = Request(method, target, passed)
    if version != b"HTTP/1.1":
        _judge_version(request, version)
    connection = coding = length = upgrade = None
    hosts = 0
    known = rules.judged
    for line in lines[1:]:
        field = known.get(line) or rules.judge(line)
        rule = field.rule
        if rule == PASS:
            passed.append(line)
        elif rule == HOST:
            hosts += 1
            request.host = field.value
            passed.append(line)
        elif rule == CONNECTION:
            connection = field.value if connection is None else connection + b"," + field.value
        elif rule == LENGTH:
            if length is not None:
                raise Refused(BAD_FRAMING)
            length = field.value
        elif rule == CODING:
            if coding is not None:
                raise Refused(BAD_FRAMING)
            coding = field.value
        elif rule == UPGRADE:
            upgrade = field.value if upgrade is None else upgrade + b"," + field.value
        elif rule != DROP:
            _take(request, rule, field.value, trusted, line)
    if method in _NOT_SERVED:
        raise Refused(METHOD_NOT_ALLOWED)
    if hosts != 1 and (hosts or not request.http10):
        raise Refused(BAD_HOST)
    if hosts and not valid_host(request.host):
        raise Refused(BAD_HOST)
    if target[:1] != b"/" or target.translate(_ODD_TO_SPACE) != target:
        _judge_target(request, secure or trusted)
    if coding is not None or length is not None:
        _judge_framing(request, coding, length, max_body)
    if connection is not None:
        _heed_connection(request, connection, upgrade)
    if request.max_forwards is not None:
        _count_forwards(request, request.max_forwards)
    return request


def _judge_version(request: Request, version: bytes) -> None:
    """HTTP/1.0 is the only other one. RFC 9110, section 2.5: it is our own version that goes on."""
    if version != b"HTTP/1.0":
        raise Refused(BAD_VERSION if _version(version) else BAD_REQUEST)
    request.http10 = True
    request.keep_alive = False
    request.lines[0] = b"%b %b HTTP/1.1" % (request.method, request.target)


def _heed_connection(request: Request, connection: bytes, upgrade: bytes | None) -> None:
    keep, named = connection_options(connection)
    if keep is not None:
        request.keep_alive = keep
    if named:
        if not all(map(_token, named)):
            raise Refused(BAD_REQUEST)
        request.named = named
        request.lines[1:] = without(request.lines[1:], named)
    # RFC 9110, section 7.8: an offer is one only where Connection names it, and never in HTTP/1.0. With a
    # body it would be unclear where that ends and the other protocol begins.
    if upgrade is not None and b"upgrade" in named and not request.http10 and not request.length:
        request.upgrade = protocols(upgrade)
        if request.upgrade:
            request.lines += [b"Connection: Upgrade", b"Upgrade: " + request.upgrade]


def _take(request: Request, rule: int, value: bytes, trusted: bool, line: bytes) -> None:
    """The fields that we write ourselves, and read from those whom we trust."""
    if rule == VIA:
        request.via = request.via + b", " + value if request.via else value
        if request.via.count(OURSELVES) >= _MAX_TURNS:
            raise Refused(LOOP)
    elif rule == EXPECT:
        if not request.http10:  # RFC 9110, section 10.1.1: ignored in HTTP/1.0
            if value.lower() != b"100-continue" or request.expect_continue:
                raise Refused(EXPECTATION_FAILED)
            request.expect_continue = True
            request.lines.append(line)
    elif rule == TE:
        request.takes_trailers = request.takes_trailers or b"trailers" in members(value)
    elif rule == MAX_FORWARDS:
        if request.method != b"OPTIONS":  # TRACE is answered here anyway, and others need not heed it
            request.lines.append(line)
        elif request.max_forwards is None and value.isdigit():
            request.max_forwards = value
        else:
            raise Refused(BAD_REQUEST)
    elif not trusted:
        return
    elif rule == ID:
        request.given_id = value
    elif rule == FORWARDED_FOR:
        request.forwarded_for = request.forwarded_for + b", " + value if request.forwarded_for else value
    elif rule == FORWARDED_PROTO:
        request.forwarded_proto = value
    elif rule == FORWARDED_HOST:
        request.forwarded_host = value
    elif rule == FORWARDED:
        request.forwarded = request.forwarded + b", " + value if request.forwarded else value
    elif rule == FORWARDED_MORE:
        request.lines.append(line)


def _count_forwards(request: Request, value: bytes) -> None:
    """RFC 9110, section 7.6.2: at 0 it is for us; else it goes on with one less."""
    digits = value.lstrip(b"0")
    if not digits:
        raise Answered(request)
    # A number may be lowered to the largest that one knows.
    request.lines.append(b"Max-Forwards: %d" % ((int(digits) if len(digits) <= 9 else 1_000_000_000) - 1))


def _judge_target(request: Request, secure: bool) -> None:
    """Targets that are no plain path: odd octets, `*` for OPTIONS, the absolute form, whose Host counts."""
    target = request.target
    if target[:1] == b"/":
        _judge_path(target)
        return
    if target == b"*" and request.method == b"OPTIONS":
        return
    absolute = _absolute(target)
    if absolute is None:
        raise Refused(BAD_REQUEST)
    scheme, authority, rest = absolute.groups()
    if not valid_host(authority):  # empty, or with userinfo, too
        raise Refused(BAD_REQUEST)
    if len(scheme) == 5 and not secure:  # RFC 9110, section 7.4: what is not secured is not https
        raise Refused(BAD_REQUEST)
    _judge_path(rest)
    # RFC 9112, section 3.2.2: the Host field is ignored, and made anew from the target.
    request.host = authority
    if not rest and request.method == b"OPTIONS":
        request.target = b"*"  # RFC 9112, section 3.2.4
    else:
        request.target = rest if rest.startswith(b"/") else b"/" + rest
    lines = [line for line in request.lines[1:] if line.partition(b":")[0].lower() != b"host"]
    start = b"%b %b HTTP/1.1" % (request.method, request.target)
    request.lines = [start, b"Host: " + authority, *lines]


def _judge_path(target: bytes) -> None:
    path, _, query = target.partition(b"?")
    if not _path(path) or not _query(query):
        raise Refused(BAD_REQUEST)


def _judge_framing(
    request: Request, coding: bytes | None, length: bytes | None, max_body: int | None
) -> None:
    """One Content-Length of digits, or one Transfer-Encoding that is `chunked`: RFC 9112, section 6."""
    if coding is not None:
        if length is not None or request.http10:
            raise Refused(BAD_FRAMING)
        if coding.lower() != b"chunked":
            raise Refused(UNKNOWN_CODING)
        request.length = CHUNKED
        request.lines.append(CODING_CHUNKED)
        return
    assert length is not None
    if not content_length(length):
        raise Refused(BODY_TOO_LARGE if length.isdigit() else BAD_FRAMING)
    request.length = int(length)
    if max_body is not None and request.length > max_body:
        raise Refused(BODY_TOO_LARGE)
    request.lines.append(b"Content-Length: %d" % request.length)


_known_starts: Final[dict[bytes, tuple[int, bytes, bool]]] = {}


def _judge_start(start: bytes) -> tuple[int, bytes, bool] | None:
    """Status, the status line as it goes on, and whether it was HTTP/1.0; None where it is no good one."""
    if start[:9] not in (b"HTTP/1.1 ", b"HTTP/1.0 ") or not start[9:12].isdigit():
        return None
    status = int(start[9:12])
    if status < 100 or start[12:13] not in (b" ", b"") or not _reason(start[13:]):
        return None
    http10 = start[7:8] == b"0"
    if http10 or len(start) == 12:
        known = (status, b"HTTP/1.1 %d %b" % (status, start[13:]), http10)
    else:
        known = (status, start, False)
    if len(start) <= 64 and len(_known_starts) < 512:
        _known_starts[start] = known
    return known


def parse_response(lines: list[bytes], rules: Rules) -> Response | None:
    """A response from the lines of a head that llhttp has found well-formed; None where we refuse it.

    The response gets the lines that are passed on, the status line first.
    """
    judged_start = _known_starts.get(lines[0]) or _judge_start(lines[0])
    if judged_start is None:
        return None
    if len(lines) > _MAX_FIELDS:
        return None
    status, start, http10 = judged_start
    passed = [start]
    length = UNTIL_CLOSE
    connection = None
    dated = False
    upgrade = b""
    known = rules.judged
    for line in lines[1:]:
        field = known.get(line) or rules.judge(line)
        rule = field.rule
        if rule == PASS:
            passed.append(line)
        elif rule == LENGTH:
            if length != UNTIL_CLOSE or not content_length(field.value):
                return None
            length = int(field.value)
            if status >= 200 and status != 204:
                passed.append(b"Content-Length: %d" % length if field.value[0] == _ZERO else line)
        elif rule == CODING:
            if length != UNTIL_CLOSE or http10 or field.value.lower() != b"chunked":
                return None
            length = CHUNKED
        elif rule == DATE:
            dated = True
            passed.append(line)
        elif rule == CONNECTION:
            connection = field.value if connection is None else connection + b"," + field.value
        elif rule == UPGRADE:
            upgrade = upgrade + b"," + field.value if upgrade else field.value
    response = Response(status, passed, length, not http10)
    response.dated = dated
    if connection is None:
        return response
    keep, named = connection_options(connection)
    if keep is not None:
        response.keep_alive = keep
    if named:
        response.named = named
        passed[1:] = without(passed[1:], named)
    if status == 101 and b"upgrade" in named and not http10:
        response.upgrade = upgrade
    return response


def switches(response: Response, offered: bytes) -> bool:
    """Whether this 101 switches to a protocol that was offered, and to no other."""
    chosen = members(response.upgrade)
    return len(chosen) == 1 and chosen[0] in members(offered)
