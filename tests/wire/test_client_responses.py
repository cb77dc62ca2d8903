"""Responses as they come from backends, at every cut of their bytes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.core.messages import made_request
from tests.wire.recording import COMPLETE, BackendConversation, ResponseHeard, every_cut, response

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@dataclass(frozen=True)
class Case:
    """What a backend says, what is heard, and whether its connection may serve again."""

    raw: bytes
    heard: ResponseHeard
    reusable: bool = True
    asked: bytes = b"GET"
    closes: bool = False


def ok(*fields: bytes, body: bytes = b"", **more: object) -> ResponseHeard:
    return response(b"200 OK", *fields, body=body, **more)  # type: ignore[arg-type]


FRAMED = {
    "a length": Case(HELLO, ok(b"Content-Length: 5", body=b"hello")),
    "a length of 0": Case(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ok(b"Content-Length: 0")),
    "a length with zeros in front": Case(
        b"HTTP/1.1 200 OK\r\ncontent-length:005\r\n\r\nhello", ok(b"Content-Length: 5", body=b"hello")
    ),
    "chunked": Case(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        ok(body=b"hello world"),
    ),
    "chunked, nothing": Case(b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n", ok()),
    "chunked, with trailers": Case(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a\r\n\r\n",
        ok(body=b"hi", trailers=(b"X-Sum: 1",)),
    ),
    "until the connection ends": Case(
        b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\nhello\r\n\r\nworld",
        ok(b"X: 1", body=b"hello\r\n\r\nworld"),
        reusable=False,
        closes=True,
    ),
    "nothing until the connection ends": Case(b"HTTP/1.1 200 OK\r\n\r\n", ok(), reusable=False, closes=True),
}

WITHOUT_BODY = {
    "HEAD": Case(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ok(b"Content-Length: 5"), asked=b"HEAD"),
    "HEAD, chunked": Case(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ok(), asked=b"HEAD"),
    "HEAD without a length": Case(b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\n", ok(b"X: 1"), asked=b"HEAD"),
    "204": Case(b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n", response(b"204 No Content", b"X: 1")),
    "204 with a length": Case(
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", response(b"204 No Content")
    ),
    "304 with a length": Case(
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: a\r\n\r\n",
        response(b"304 Not Modified", b"Content-Length: 5", b"ETag: a"),
    ),
}

CONNECTIONS = {
    "close": Case(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        ok(b"Content-Length: 5", body=b"hello"),
        reusable=False,
    ),
    "keep-alive": Case(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n",
        ok(b"Content-Length: 0"),
    ),
    "fields that Connection names": Case(
        b"HTTP/1.1 200 OK\r\nX-Me: 1\r\nConnection: x-me, content-length\r\nContent-Length: 5\r\n\r\nhello",
        ok(b"Content-Length: 5", body=b"hello"),
    ),
    "hop-by-hop fields": Case(
        b"HTTP/1.1 200 OK\r\nUpgrade: a\r\nProxy-Connection: a\r\nTE: a\r\nX: 1\r\nContent-Length: 0\r\n\r\n",
        ok(b"X: 1", b"Content-Length: 0"),
    ),
    "a field that is ours": Case(
        b"HTTP/1.1 200 OK\r\nx-request-ID: forged\r\nX_Request_ID: too\r\nContent-Length: 0\r\n\r\n",
        ok(b"Content-Length: 0"),
    ),
    "HTTP/1.0": Case(
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ok(b"Content-Length: 5", body=b"hello"),
        reusable=False,
    ),
    "HTTP/1.0 that stays": Case(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        ok(b"Content-Length: 5", body=b"hello"),
    ),
    "HTTP/1.0 until the connection ends": Case(
        b"HTTP/1.0 200 OK\r\n\r\nhello", ok(body=b"hello"), reusable=False, closes=True
    ),
}

HEADS = {
    "no reason": Case(b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", response(b"200 ", b"Content-Length: 0")),
    "an odd reason": Case(
        b"HTTP/1.1 404 N\xf6t f\tound: 7\r\nContent-Length: 0\r\n\r\n",
        response(b"404 N\xf6t f\tound: 7", b"Content-Length: 0"),
    ),
    "an unusual status": Case(
        b"HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n", response(b"799 Odd", b"Content-Length: 0")
    ),
    "values pass as they came": Case(
        b"HTTP/1.1 200 OK\r\nX-A:1\r\nx-b: \t2 \r\nX-C:\r\nX-D: \xe9\r\nContent-Length: 0\r\n\r\n",
        ok(b"X-A:1", b"x-b: \t2 ", b"X-C:", b"X-D: \xe9", b"Content-Length: 0"),
    ),
    "two cookies": Case(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
        ok(b"Set-Cookie: a", b"Set-Cookie: b", b"Content-Length: 0"),
    ),
}

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"
INTERIM = {
    "100, then the real one": Case(
        CONTINUE + HELLO, ok(b"Content-Length: 5", body=b"hello", interim=[(b"HTTP/1.1 100 Continue",)])
    ),
    "hints, and more of them": Case(
        HINTS + CONTINUE + HINTS + HELLO,
        ok(
            b"Content-Length: 5",
            body=b"hello",
            interim=[
                (b"HTTP/1.1 103 Early Hints", b"Link: </a>"),
                (b"HTTP/1.1 100 Continue",),
                (b"HTTP/1.1 103 Early Hints", b"Link: </a>"),
            ],
        ),
    ),
    "100, then until the connection ends": Case(
        CONTINUE + b"HTTP/1.1 200 OK\r\n\r\nhi",
        ok(body=b"hi", interim=[(b"HTTP/1.1 100 Continue",)]),
        reusable=False,
        closes=True,
    ),
}

TABLE = {**FRAMED, **WITHOUT_BODY, **CONNECTIONS, **HEADS, **INTERIM}
every_case = pytest.mark.parametrize("case", TABLE.values(), ids=list(TABLE))
BOUNDED = {name: case for name, case in TABLE.items() if not case.closes}


def told(case: Case, *pieces: bytes) -> BackendConversation:
    conversation = BackendConversation(case.asked).says(*pieces)
    return conversation.closes() if case.closes else conversation


@every_case
def test_at_every_cut_the_same_is_heard(case: Case) -> None:
    for pieces in every_cut(case.raw):
        conversation = told(case, *pieces)
        assert conversation.heard == case.heard, f"cut as {pieces[:2]}"
        assert conversation.codec.reusable is case.reusable


@pytest.mark.parametrize("case", BOUNDED.values(), ids=list(BOUNDED))
def test_bytes_behind_it_reach_nobody_and_spoil_the_connection(case: Case) -> None:
    for extra in (b"\r\n", b"x", HELLO):
        for pieces in every_cut(case.raw + extra):
            conversation = told(case, *pieces)
            assert conversation.heard == case.heard, f"cut as {pieces[:2]}"
            assert not conversation.codec.reusable


@every_case
def test_a_connection_that_may_serve_again_does(case: Case) -> None:
    conversation = told(case, case.raw)
    if not case.reusable:
        assert not conversation.codec.reusable
        return
    assert conversation.codec.idle
    first = conversation.heard
    second = conversation.ask(made_request(b"/again"))
    assert not conversation.codec.idle
    conversation.says(HELLO)
    assert second == ok(b"Content-Length: 5", body=b"hello")
    assert first == case.heard
    assert conversation.codec.reusable


def test_what_comes_before_anything_was_asked_spoils_the_connection() -> None:
    conversation = BackendConversation().says(HELLO)
    assert conversation.codec.reusable
    conversation.says(b"HTTP/1.1 408 Timeout\r\n\r\n")
    assert not conversation.codec.reusable
    assert conversation.heard == ok(b"Content-Length: 5", body=b"hello")


def test_data_are_told_as_they_come() -> None:
    conversation = BackendConversation().says(HELLO[:-3])
    assert (conversation.heard.body, conversation.heard.ending) == (b"he", "")
    conversation.says(b"l")
    assert (conversation.heard.body, conversation.heard.ending) == (b"hel", "")
    conversation.says(b"lo")
    assert (conversation.heard.body, conversation.heard.ending) == (b"hello", COMPLETE)
