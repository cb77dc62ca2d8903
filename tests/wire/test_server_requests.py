"""Requests as they come from clients, at every cut of their bytes: always the same is understood."""

from __future__ import annotations

import pytest

from tests.wire.recording import AT_ONCE, LATER, NEVER, ClientConversation, RequestHeard, every_cut, request

HOST = b"Host: shop.test\r\n"


def get(*fields: bytes) -> bytes:
    """A GET with these fields."""
    return b"GET / HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in fields) + b"\r\n"


def post(*fields: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in fields) + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"

METHODS = {
    "GET": (
        b"GET /a/b?c=d&e HTTP/1.1\r\nHost: shop.test\r\nAccept: */*\r\n\r\n",
        request(b"GET /a/b?c=d&e", b"Accept: */*"),
    ),
    "HEAD": (b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n", request(b"HEAD /")),
    "DELETE": (b"DELETE /7 HTTP/1.1\r\n" + HOST + b"\r\n", request(b"DELETE /7")),
    "PATCH with a body": (
        b"PATCH /7 HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
        request(b"PATCH /7", b"Content-Length: 2", body=b"{}"),
    ),
    "GET with a body": (
        get(b"Content-Length: 2") + b"hi",
        request(b"GET /", b"Content-Length: 2", body=b"hi"),
    ),
    "OPTIONS of the server": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", request(b"OPTIONS *")),
    "PROPFIND": (b"PROPFIND / HTTP/1.1\r\n" + HOST + b"\r\n", request(b"PROPFIND /")),
}

BODIES = {
    "a length": (
        post(b"Content-Length: 5", body=b"hello"),
        request(b"POST /", b"Content-Length: 5", body=b"hello"),
    ),
    "a length of 0": (post(b"Content-Length: 0"), request(b"POST /", b"Content-Length: 0")),
    "no length": (post(), request(b"POST /")),
    "a length with leading zeros": (
        post(b"Content-Length: 005", body=b"hello"),
        request(b"POST /", b"Content-Length: 5", body=b"hello"),
    ),
    "a length with spaces around": (
        post(b"Content-Length: \t 5 \t", body=b"hello"),
        request(b"POST /", b"Content-Length: 5", body=b"hello"),
    ),
    "a body that looks like a request": (
        post(b"Content-Length: %d" % len(get()), body=get()),
        request(b"POST /", b"Content-Length: %d" % len(get()), body=get()),
    ),
    "chunked": (
        post(CHUNKED, body=b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n"),
        request(b"POST /", CHUNKED, body=b"hello world"),
    ),
    "chunked, nothing": (post(CHUNKED, body=b"0\r\n\r\n"), request(b"POST /", CHUNKED)),
    "chunked, with trailers": (
        post(CHUNKED, body=b"2\r\nhi\r\n000\r\nX-Sum: 9\r\nContent-Length: 1\r\nX-Last:\r\n\r\n"),
        request(b"POST /", CHUNKED, body=b"hi", trailers=(b"X-Sum: 9", b"X-Last:")),
    ),
    "chunked in other letters": (
        post(b"transfer-ENCODING:\tChUnKeD", body=b"A\r\n0123456789\r\n0\r\n\r\n"),
        request(b"POST /", CHUNKED, body=b"0123456789"),
    ),
    "chunked with a space behind": (
        post(CHUNKED + b" ", b"X-More: 1", body=b"0\r\n\r\n"),
        request(b"POST /", b"X-More: 1", CHUNKED),
    ),
    "chunks that hold what ends a head": (
        post(CHUNKED, body=b"4\r\n\r\n\r\n\r\n7\r\n0\r\n\r\nGE\r\n0\r\n\r\n"),
        request(b"POST /", CHUNKED, body=b"\r\n\r\n0\r\n\r\nGE"),
    ),
    "Expect: 100-continue": (
        post(b"Expect: 100-continue", b"Content-Length: 2", body=b"hi"),
        request(b"POST /", b"Expect: 100-continue", b"Content-Length: 2", body=b"hi", expects=True),
    ),
    "Expect in other letters": (
        get(b"expect: 100-Continue"),
        request(b"GET /", b"expect: 100-Continue", expects=True),
    ),
}

CONNECTIONS = {
    "close": (get(b"Connection: close"), request(b"GET /", keep_alive=False)),
    "keep-alive": (get(b"Connection: Keep-Alive"), request(b"GET /")),
    "close counts more than keep-alive": (
        get(b"Connection: keep-alive", b"Connection: Close"),
        request(b"GET /", keep_alive=False),
    ),
    "fields that Connection names": (
        get(b"X-Mine: 1", b"Connection: x-mine ,, X-YOURS", b"X-Yours: 2", b"X-Ours: 3"),
        request(b"GET /", b"X-Ours: 3"),
    ),
    "Connection can't take Host or framing away": (
        post(b"Connection: host, content-length", b"Content-Length: 2", body=b"hi"),
        request(b"POST /", b"Content-Length: 2", body=b"hi"),
    ),
    "hop-by-hop fields": (
        get(
            b"Keep-Alive: timeout=5",
            b"Proxy-Connection: keep-alive",
            b"TE: trailers",
            b"Proxy: http://evil.test",
            b"Upgrade: foo",
        ),
        request(b"GET /"),
    ),
    "an offer of WebSocket": (
        get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x"),
        request(b"GET /", b"Sec-WebSocket-Key: x", b"Connection: Upgrade", b"Upgrade: websocket"),
    ),
    "an offer of h2c": (
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ"),
        request(b"GET /"),
    ),
    "an offer of several": (
        get(b"Connection: keep-alive, Upgrade", b"Upgrade: HTTP/2.0, foo", b"Upgrade: bar/1,TLS/1.2"),
        request(b"GET /", b"Connection: Upgrade", b"Upgrade: foo, bar/1"),
    ),
    "an offer that Connection doesn't name": (
        get(b"Connection: keep-alive", b"Upgrade: websocket"),
        request(b"GET /"),
    ),
    "an offer with a body": (
        post(b"Connection: upgrade", b"Upgrade: foo", b"Content-Length: 2", body=b"hi"),
        request(b"POST /", b"Content-Length: 2", body=b"hi"),
    ),
}

OLD = {
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n" + HOST + b"\r\n", request(b"GET /", keep_alive=False)),
    "HTTP/1.0 without a Host": (b"GET / HTTP/1.0\r\n\r\n", request(b"GET /", host=b"", keep_alive=False)),
    "HTTP/1.0 that stays": (
        b"GET / HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n",
        request(b"GET /"),
    ),
    "HTTP/1.0 with a body": (
        b"POST / HTTP/1.0\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi",
        request(b"POST /", b"Content-Length: 2", body=b"hi", keep_alive=False),
    ),
    "HTTP/1.0 knows no Expect": (
        b"GET / HTTP/1.0\r\n" + HOST + b"Expect: the best\r\n\r\n",
        request(b"GET /", keep_alive=False),
    ),
}

TARGETS = {
    "absolute": (
        b"GET http://shop.test/a?b HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        request(b"GET /a?b"),
    ),
    "absolute counts more than Host": (
        b"GET http://shop.test:80/ HTTP/1.1\r\nX-A: 1\r\nHost: other.test\r\n\r\n",
        request(b"GET /", b"X-A: 1", host=b"shop.test:80"),
    ),
    "absolute without a path": (
        b"GET HTTP://shop.test?a HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        request(b"GET /?a"),
    ),
    "absolute with an IPv6 literal": (
        b"GET http://[::1]:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
        request(b"GET /", host=b"[::1]:80"),
    ),
    "one that looks like an authority": (
        b"GET //a.test/ HTTP/1.1\r\n" + HOST + b"\r\n",
        request(b"GET //a.test/"),
    ),
    "what browsers leave as it is": (
        b"GET /%00/..;/a|b[0]?100%&{a}|b[0]^`\\ HTTP/1.1\r\n" + HOST + b"\r\n",
        request(b"GET /%00/..;/a|b[0]?100%&{a}|b[0]^`\\"),
    ),
    "absolute, and what browsers leave": (
        b"GET http://shop.test/a|b?c|d HTTP/1.1\r\n" + HOST + b"\r\n",
        request(b"GET /a|b?c|d"),
    ),
}

FORWARDS = {
    "OPTIONS that may go further": (
        b"OPTIONS /a HTTP/1.1\r\n" + HOST + b"Max-Forwards: 10\r\n\r\n",
        request(b"OPTIONS /a", b"Max-Forwards: 9"),
    ),
    "OPTIONS that may go one step": (
        b"OPTIONS * HTTP/1.1\r\n" + HOST + b"max-forwards:01\r\n\r\n",
        request(b"OPTIONS *", b"Max-Forwards: 0"),
    ),
    "OPTIONS that may go further than there is": (
        b"OPTIONS /a HTTP/1.1\r\n" + HOST + b"Max-Forwards: 10000000000000000000000\r\n\r\n",
        request(b"OPTIONS /a", b"Max-Forwards: 999999999"),
    ),
    "other methods don't care": (
        get(b"Max-Forwards: x", b"X-A: 1"),
        request(b"GET /", b"Max-Forwards: x", b"X-A: 1"),
    ),
}

FIELDS = {
    "values pass as they came": (
        get(b"X-A:1", b"X-B: \t 2\t ", b"X-C:", b"X-D: a:b, c", b"X-E: \xe9\xff", b"!#$%&'*+-.^_`|~9: token"),
        request(
            b"GET /",
            b"X-A:1",
            b"X-B: \t 2\t ",
            b"X-C:",
            b"X-D: a:b, c",
            b"X-E: \xe9\xff",
            b"!#$%&'*+-.^_`|~9: token",
        ),
    ),
    "the same field many times": (
        get(b"Cookie: a", b"Cookie: b", b"Cookie: a"),
        request(b"GET /", b"Cookie: a", b"Cookie: b", b"Cookie: a"),
    ),
    "what a stranger says of himself": (
        get(
            b"X-Request-ID: 12345678",
            b"X-Forwarded-For: 1.1.1.1",
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Host: a",
            b"Forwarded: for=1.1.1.1",
            b"X-Real-One: 1",
        ),
        request(b"GET /", b"X-Real-One: 1"),
    ),
    "spellings that a CGI reads as ours": (
        get(b"Content_Length: 5", b"TRANSFER_ENCODING: chunked", b"X_Forwarded-For: a", b"X_Mine: 1"),
        request(b"GET /", b"X_Mine: 1"),
    ),
    "an empty line in front": (b"\r\n" + get(), request(b"GET /")),
}

HOSTS = {
    host.decode(): (b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host, request(b"GET /", host=host))
    for host in (
        b"a",
        b"shop.test:8080",
        b"shop.test:",
        b"127.0.0.1",
        b"[::1]",
        b"[2001:db8::1]:443",
        b"xn--a.",
    )
}

TABLE = {**METHODS, **BODIES, **CONNECTIONS, **OLD, **TARGETS, **FORWARDS, **FIELDS, **HOSTS}

PIPELINES = {
    "three GETs": (3 * get(), 3 * [request(b"GET /")]),
    "of every framing": (
        TABLE["a length"][0] + TABLE["chunked, with trailers"][0] + get() + TABLE["chunked, nothing"][0],
        [
            TABLE["a length"][1],
            TABLE["chunked, with trailers"][1],
            request(b"GET /"),
            TABLE["chunked, nothing"][1],
        ],
    ),
    "an empty line between": (
        TABLE["a length"][0] + b"\r\n" + get(),
        [TABLE["a length"][1], request(b"GET /")],
    ),
    "upgrade offers": (
        2 * TABLE["an offer of WebSocket"][0] + get(),
        [*2 * [TABLE["an offer of WebSocket"][1]], request(b"GET /")],
    ),
    "nothing after a close": (
        get() + get(b"Connection: close") + get(),
        [request(b"GET /"), TABLE["close"][1]],
    ),
    "nothing after an HTTP/1.0": (TABLE["HTTP/1.0"][0] + get(), [TABLE["HTTP/1.0"][1]]),
}


@pytest.mark.parametrize("answers", [AT_ONCE, LATER])
@pytest.mark.parametrize(
    ("raw", "heard"),
    [*((raw, [heard]) for raw, heard in TABLE.values()), *PIPELINES.values()],
    ids=[*TABLE, *(f"pipeline: {name}" for name in PIPELINES)],
)
def test_at_every_cut_the_same_is_understood(raw: bytes, heard: list[RequestHeard], answers: str) -> None:
    for pieces in every_cut(raw):
        conversation = ClientConversation(answers=answers).says(*pieces)
        assert conversation.understood == (heard, []), f"cut as {pieces[:2]}"
        assert conversation.wire.reading


@pytest.mark.parametrize(
    "raw", [b"\r\n\r\n" + get(), get() + b"\r\n\r\n" + get()], ids=["in front", "between"]
)
def test_two_empty_lines_are_ignored_or_refused_but_alike_at_every_cut(raw: bytes) -> None:
    conversations = [ClientConversation().says(*pieces) for pieces in every_cut(raw)]
    assert len({(len(each.requests), *each.refused) for each in conversations}) == 1


@pytest.mark.parametrize("trusted", [True, False])
def test_a_trusted_proxy_is_believed(trusted: bool) -> None:
    raw = get(
        b"X-Request-ID: 12345678",
        b"X-Forwarded-For: 1.1.1.1",
        b"x-forwarded-for: 2.2.2.2",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: outside.test",
        b"Forwarded: for=1.1.1.1",
        b"FORWARDED: for=2.2.2.2",
        b"Via: 1.1 one",
        b"Via: 1.0 two",
    )
    for pieces in every_cut(raw):
        conversation = ClientConversation(trusted=trusted).says(*pieces)
        [head] = conversation.heads
        assert head.via == b"1.1 one, 1.0 two"
        if trusted:
            assert head.given_id == b"12345678"
            assert head.forwarded_for == b"1.1.1.1, 2.2.2.2"
            assert (head.forwarded_proto, head.forwarded_host) == (b"https", b"outside.test")
            assert head.forwarded == b"for=1.1.1.1, for=2.2.2.2"
        else:
            assert not head.given_id
            assert (head.forwarded_for, head.forwarded_proto, head.forwarded_host) == (b"", b"", b"")
            assert not head.forwarded
        assert conversation.requests == [request(b"GET /")]


OWN = b"OPTIONS /a HTTP/1.1\r\n" + HOST + b"Max-Forwards: 0\r\n\r\n"


def test_options_that_may_go_no_further_are_for_us() -> None:
    for pieces in every_cut(OWN + get() + OWN.replace(b": 0", b": 000")):
        conversation = ClientConversation().says(*pieces)
        assert [head.target for head in conversation.own] == [b"/a", b"/a"]
        assert conversation.understood == ([request(b"GET /")], [])


@pytest.mark.parametrize("more", [b"Content-Length: 5\r\n", CHUNKED + b"\r\n", b"Connection: close\r\n"])
def test_options_for_us_with_a_body_are_the_last(more: bytes) -> None:
    conversation = ClientConversation().says(
        OWN.replace(b"\r\n\r\n", b"\r\n" + more + b"\r\n") + get(), get()
    )
    assert len(conversation.own) == 1
    assert conversation.understood == ([], [])


@pytest.mark.parametrize("others", [b"Host: a/b\r\n", HOST + HOST, HOST + b"Content-Length: x\r\n"])
def test_options_for_us_have_to_be_good_ones(others: bytes) -> None:
    conversation = ClientConversation().says(OWN.replace(HOST, others))
    assert (len(conversation.own), len(conversation.refused)) == (0, 1)


@pytest.mark.parametrize("scheme", [b"https", b"HTTPS", b"http"])
@pytest.mark.parametrize("how", ["secure", "trusted"])
def test_https_may_be_asked_for_where_it_is_secured(scheme: bytes, how: str) -> None:
    conversation = ClientConversation(trusted=how == "trusted")
    conversation.codec.secure = how == "secure"
    conversation.says(b"GET %b://shop.test/a HTTP/1.1\r\n%b\r\n" % (scheme, HOST))
    assert conversation.understood == ([request(b"GET /a")], [])


def test_each_version_is_known() -> None:
    conversation = ClientConversation().says(TABLE["HTTP/1.0 that stays"][0], get())
    assert [head.http10 for head in conversation.heads] == [True, False]


def test_where_a_codec_stands() -> None:
    conversation = ClientConversation(answers=NEVER)
    codec = conversation.codec

    def stands() -> tuple[bool, bool, bool]:
        return codec.idle, codec.reading_head, codec.reading_body

    assert stands() == (True, False, False)
    conversation.says(b"\r\n")
    assert stands() == (False, True, False)
    conversation.says(b"POST / HTTP/1.1\r\n")
    assert stands() == (False, True, False)
    conversation.says(HOST, b"Content-Length: 3\r\n\r\n")
    assert stands() == (False, False, True)
    conversation.says(b"ab")
    assert stands() == (False, False, True)
    conversation.says(b"c")
    assert stands() == (False, False, False)
    conversation.answer()
    assert stands() == (True, False, False)
    conversation.says(post(CHUNKED))
    assert stands() == (False, False, True)
    codec.close()
    assert stands() == (False, False, False)
