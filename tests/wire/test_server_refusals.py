"""What is no request, or not clearly one: refused with its name, and nothing after it is listened to."""

from __future__ import annotations

import pytest

from tests.wire.recording import AT_ONCE, LATER, ClientConversation, every_cut
from tests.wire.test_server_requests import CHUNKED, HOST, get, post

BEHIND = b"GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n"
LONG = 1000  # bytes: no more cuts than are worth their time


def target(target: bytes, method: bytes = b"GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: shop.test\r\n\r\n" % (method, target)


def host(*values: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n" + b"".join(b"Host: %b\r\n" % value for value in values) + b"\r\n"


def length(value: bytes) -> bytes:
    return post(b"Content-Length: " + value)


def coding(value: bytes) -> bytes:
    return post(b"Transfer-Encoding: " + value)


BAD_REQUEST = {
    "no version": b"GET /\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces before the version": b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tab instead of a space": b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space behind the version": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "a space in front": b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a line feed in front": b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a carriage return in front": b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "an empty line and a line feed in front": b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the target": target(b"/a b"),
    "a control character in the target": target(b"/a\x01b"),
    "a NUL in the target": target(b"/a\x00b"),
    "a target beyond ASCII": target("/é".encode()),
    "a fragment": target(b"/a#b"),
    "a relative target": target(b"a"),
    "an authority as target": target(b"shop.test:80"),
    "a star with GET": target(b"*"),
    "a double quote in the target": target(b'/a"b'),
    "angle brackets in the query": target(b"/?<b>"),
    "braces in the path": target(b"/{id}"),
    "a backslash in the path": target(b"/a\\..\\b"),
    "a caret in the path": target(b"/a^b"),
    "a broken escape in the path": target(b"/a%zz"),
    "an escape that is cut in the path": target(b"/a%2"),
    "a broken escape in an absolute target": target(b"http://shop.test/a%zz"),
    "a double quote in an absolute target": target(b'http://shop.test/?"'),
    "https where nothing is secured": target(b"https://shop.test/"),
    "a Connection option with a space": get(b"Connection: keep alive"),
    "a Connection option in quotes": get(b'Connection: "close"'),
    "a Connection option with a parameter": get(b"Connection: close;x"),
    "a Connection option behind a no-break space": get(b"Connection: \xa0close"),
    "Max-Forwards twice": target(b"/", b"OPTIONS").replace(
        b"\r\n\r\n", b"\r\nMax-Forwards: 1" * 2 + b"\r\n\r\n"
    ),
    "Max-Forwards that is no number": target(b"/", b"OPTIONS").replace(
        b"\r\n\r\n", b"\r\nMax-Forwards: +1\r\n\r\n"
    ),
    "another scheme": target(b"ftp://shop.test/"),
    "absolute without a host": target(b"http:///a"),
    "absolute with a user": target(b"http://user@shop.test/"),
    "absolute with a broken port": target(b"http://shop.test:port/"),
    "a version in small letters": b"GET / http/1.1\r\nHost: a\r\n\r\n",
    "a version with a long minor": b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
    "a version without a dot": b"GET / HTTP/11\r\nHost: a\r\n\r\n",
    "another protocol": b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n",
    "a method with odd characters": b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "an unknown method with odd characters": b"X(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no request line": b"Host: a\r\n\r\n",
    "a line feed alone ends the line": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "a line feed alone ends a field": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "line feeds alone": b"GET / HTTP/1.1\nHost: a\n\n",
    "a carriage return alone": get(b"X: a\rY: b"),
    "a folded field": get(b"X: a", b" b"),
    "a folded field with a tab": get(b"X: a", b"\tb"),
    "a field folded at the very first": b"GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n",
    "a space before the colon": get(b"X : a"),
    "a tab before the colon": get(b"X\t: a"),
    "a space before the colon of a length": post(b"Content-Length : 5"),
    "no colon": get(b"X"),
    "no name": get(b": a"),
    "a space in a name": get(b"X Y: a"),
    "a name beyond ASCII": get("Xé: a".encode()),
    "a control character in a name": get(b"X\x01: a"),
    "a vertical tab before a length": post(b"\x0bContent-Length: 5"),
    "a NUL in a value": get(b"X: a\x00b"),
    "a control character in a value": get(b"X: a\x01b"),
    "a delete in a value": get(b"X: a\x7fb"),
    "an escape in a value": get(b"X: \x1b[31m"),
    "TLS": bytes.fromhex("16030100a5010000a10303") + b"\r\n\r\n",
    "a NUL": b"\x00\r\n\r\n",
}

BAD_HOST = {
    "none": b"GET / HTTP/1.1\r\n\r\n",
    "two": host(b"a", b"b"),
    "twice the same": host(b"a", b"a"),
    "two in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "absolute, and none": b"GET http://a/ HTTP/1.1\r\n\r\n",
    "absolute, and one that is none": b"GET http://a/ HTTP/1.1\r\nHost: b/c\r\n\r\n",
    "absolute, and an empty one": b"GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n",
    "empty": host(b""),
    "only a port": host(b":80"),
    "a user": host(b"user@a"),
    "a path": host(b"a/b"),
    "a query": host(b"a?b"),
    "a space within": host(b"a b"),
    "a scheme": host(b"http://a"),
    "a port that is no number": host(b"a:b"),
    "a port with a sign": host(b"a:+80"),
    "a port that is too large": host(b"a:65536"),
    "two ports": host(b"a:80:81"),
    "a literal without an end": host(b"[::1"),
    "a literal that is no address": host(b"[:::1]"),
    "a literal and more": host(b"[::1]a"),
    "IPv6 without brackets": host(b"::1"),
    "beyond ASCII": host("é".encode()),
    "a backslash": host(b"a\\b"),
    "a broken escape": host(b"a%zz"),
}

TWO_WAYS = {
    "two lengths": post(b"Content-Length: 5", b"Content-Length: 5"),
    "a length and a coding": post(b"Content-Length: 5", CHUNKED),
    "a coding and a length": post(CHUNKED, b"Content-Length: 5"),
    "two codings": post(CHUNKED, CHUNKED),
    "a coding in HTTP/1.0": b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n\r\n0\r\n\r\n",
}

BAD_LENGTHS = {
    "a plus": b"+5",
    "a minus": b"-5",
    "an underscore": b"1_0",
    "hexadecimal": b"0x5",
    "a point": b"5.0",
    "an exponent": b"1e1",
    "a list": b"5, 5",
    "a space within": b"1 0",
    "nothing": b"",
    "a superscript": b"\xb2",
    "an Arabic digit": "٥".encode(),
    "a full-width digit": "５".encode(),
    "a vertical tab": b"\x0b5",
    "a form feed": b"5\x0c",
    "a no-break space": b"\xa05",
    "a next line": b"5\x85",
    "a quoted one": b'"5"',
}

TOO_LONG = {
    "twenty digits": b"9" * 20,
    "five thousand digits": b"9" * 5000,
}

BAD_CODINGS = {
    "gzip": b"gzip",
    "gzip, and then chunked": b"gzip, chunked",
    "chunked, and then gzip": b"chunked, gzip",
    "chunked twice": b"chunked, chunked",
    "identity": b"identity",
    "a parameter": b"chunked;q=1",
    "a Kelvin sign": "chun\N{KELVIN SIGN}ed".encode(),
    "a quoted one": b'"chunked"',
    "a letter more": b"chunkedd",
    "a letter less": b"chunke",
    "a vertical tab": b"\x0bchunked",
    "a no-break space": b"chunked\xa0",
    "nothing": b"",
}

OTHERS = {
    "a method of nobody's": (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", "unknown_method"),
    "a method in small letters": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", "unknown_method"),
    "a method that begins like one": (b"GETS / HTTP/1.1\r\nHost: a\r\n\r\n", "unknown_method"),
    "CONNECT": (b"CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test:443\r\n\r\n", "method_not_allowed"),
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "method_not_allowed"),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", "bad_version"),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", "bad_version"),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "bad_version"),
    "HTTP/3.0": (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", "bad_version"),
    "another expectation": (post(b"Expect: 200-ok", b"Content-Length: 2"), "expectation_failed"),
    "two expectations": (get(b"Expect: 100-continue", b"Expect: 100-continue"), "expectation_failed"),
    "an expectation of two": (get(b"Expect: 100-continue, more"), "expectation_failed"),
}

BY_NAME = {
    **{f"request: {name}": (raw, "bad_request") for name, raw in BAD_REQUEST.items()},
    **{f"host: {name}": (raw, "bad_host") for name, raw in BAD_HOST.items()},
    "a length of nineteen digits": (length(b"9" * 19), "body_too_large"),
    **OTHERS,
}
# llhttp refuses some of these itself, and then it is a bad request rather than a bad framing.
BY_STATUS = {
    **{f"two ways: {name}": (raw, {"bad_request", "bad_framing"}) for name, raw in TWO_WAYS.items()},
    **{
        f"length: {name}": (length(value), {"bad_request", "body_too_large"})
        for name, value in TOO_LONG.items()
    },
    **{
        f"length: {name}": (length(value), {"bad_request", "bad_framing"})
        for name, value in BAD_LENGTHS.items()
    },
    **{
        f"coding: {name}": (coding(value), {"bad_request", "unknown_coding"})
        for name, value in BAD_CODINGS.items()
    },
}


def assert_refused(raw: bytes, failures: set[str], answers: str) -> None:
    """At every cut with one and the same failure, once, and nothing that comes behind it is heard."""
    verdicts = {}
    for pieces in every_cut(raw) if len(raw) < LONG else [[raw], [raw[:LONG], raw[LONG:]]]:
        for behind in ([BEHIND], [BEHIND[:7], BEHIND[7:]]):
            conversation = ClientConversation(answers=answers).says(*pieces, *behind)
            assert conversation.requests == [], f"cut as {pieces[:2]}"
            assert not conversation.codec.keep_alive
            assert len(conversation.refused) == 1
            verdicts.setdefault(conversation.refused[0], pieces)
    assert set(verdicts) <= failures
    assert len(verdicts) == 1, f"the verdict depends on the cut: {verdicts}"


@pytest.mark.parametrize(("raw", "failure"), BY_NAME.values(), ids=list(BY_NAME))
def test_refused_with_its_name(raw: bytes, failure: str) -> None:
    assert_refused(raw, {failure}, AT_ONCE)


@pytest.mark.parametrize(("raw", "failures"), BY_STATUS.values(), ids=list(BY_STATUS))
def test_framing_is_clear_or_refused(raw: bytes, failures: set[str]) -> None:
    assert_refused(raw, failures, AT_ONCE)


@pytest.mark.parametrize("raw", [BAD_REQUEST["no colon"], BAD_HOST["two"], OTHERS["HTTP/2.0"][0]])
@pytest.mark.parametrize("answers", [AT_ONCE, LATER])
def test_behind_a_good_request_only_the_bad_one_is_refused(raw: bytes, answers: str) -> None:
    for pieces in every_cut(get() + raw):
        conversation = ClientConversation(answers=answers).says(*pieces)
        assert len(conversation.requests) == len(conversation.refused) == 1


def test_the_preface_of_http2_is_refused() -> None:
    for pieces in every_cut(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        conversation = ClientConversation().says(*pieces)
        assert conversation.requests == []
        assert conversation.refused in (["bad_version"], ["bad_request"])


def test_the_handler_gets_what_came_for_its_log() -> None:
    starts = []

    class Logging(ClientConversation):
        def on_malformed(self, failure: object, start: bytes) -> None:
            starts.append(start)

    Logging().says(b"GET / HTTP/1.1\r\n", b"broken\r\n\r\n")
    assert [start[:14] for start in starts] == [b"GET / HTTP/1.1"]


BROKEN_CHUNKS = {
    "no size": b"\r\n\r\n",
    "a size that is no number": b"x\r\n",
    "a plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "a minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "an 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "an underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "a space in front": b" 5\r\nhello\r\n0\r\n\r\n",
    "a space behind": b"5 \r\nhello\r\n0\r\n\r\n",
    "a vertical tab behind": b"5\x0b\r\nhello\r\n0\r\n\r\n",
    "a superscript": b"\xb2\r\nhi\r\n0\r\n\r\n",
    "a full-width digit": "５\r\nhello\r\n0\r\n\r\n".encode(),
    "a size beyond all measure": b"FFFFFFFFFFFFFFFFF\r\n",
    "too many digits": b"0" * 40 + b"5\r\nhello\r\n0\r\n\r\n",
    "a line feed alone behind the size": b"5\nhello\r\n0\r\n\r\n",
    "a carriage return alone behind the size": b"5\rhello\r\n0\r\n\r\n",
    "a line feed alone behind the data": b"5\r\nhello\n0\r\n\r\n",
    "nothing behind the data": b"5\r\nhello0\r\n\r\n",
    "data longer than said": b"4\r\nhello\r\n0\r\n\r\n",
    "data shorter than said": b"6\r\nhello\r\n0\r\n\r\n",
    "an extension with a line feed": b"5;a=\nb\r\nhello\r\n0\r\n\r\n",
    "an extension with a NUL": b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
    "an extension without a name": b"5;\r\nhello\r\n0\r\n\r\n",
    "an extension that is no token": b"5;a=(b)\r\nhello\r\n0\r\n\r\n",
    "an extension with an open quote": b'5;a="b\r\nhello\r\n0\r\n\r\n',
    "a trailer without a colon": b"0\r\nX\r\n\r\n",
    "a trailer with a space before the colon": b"0\r\nX : a\r\n\r\n",
    "a trailer that is folded": b"0\r\nX: a\r\n b\r\n\r\n",
    "a trailer with a line feed": b"0\r\nX: a\nY: b\r\n\r\n",
    "a trailer with a carriage return": b"0\r\nX: a\rY: b\r\n\r\n",
    "a trailer with a NUL": b"0\r\nX: \x00\r\n\r\n",
    "trailers without an end": b"0\r\n" + b"X: a\r\n" * 5000,
    "line feeds alone at the end": b"0\n\n",
}


@pytest.mark.parametrize("body", BROKEN_CHUNKS.values(), ids=list(BROKEN_CHUNKS))
def test_a_broken_chunk_ends_the_request_in_its_midst(body: bytes) -> None:
    for pieces in every_cut(body) if len(body) < LONG else [[body]]:
        conversation = ClientConversation().says(post(CHUNKED), *pieces, BEHIND)
        [heard] = conversation.requests
        assert heard.ending == "bad_framing", f"cut as {pieces[:2]}"
        assert b"hello".startswith(heard.body[:5])
        assert conversation.refused == []
        assert not conversation.codec.keep_alive
