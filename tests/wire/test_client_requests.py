"""Requests as they go to backends."""

from __future__ import annotations

import pytest

from lb.core.message import CHUNKED
from tests.core.messages import made_request
from tests.wire.recording import OURS, BackendConversation
from tests.wire.test_client_responses import HELLO

HEAD = b"POST /a HTTP/1.1\r\nHost: shop.test\r\n"


def conversation() -> BackendConversation:
    """One that has served already: nothing of that may be left."""
    served = BackendConversation().says(HELLO)
    served.wire.writes.clear()
    return served


def posted(length: int, *pieces: bytes, trailers: tuple[bytes, ...] = ()) -> BackendConversation:
    """A request whose head, data and end come one by one."""
    talk = conversation()
    head = made_request(b"/a", b"Host: shop.test", method=b"POST")
    head.length = length
    talk.ask(head, end=False)
    for piece in pieces:
        talk.codec.send_data(piece)
    talk.codec.send_end(trailers)
    return talk


@pytest.mark.parametrize(
    ("length", "data", "body"),
    [
        (0, b"", b""),
        (5, b"hello", b"hello"),
        (CHUNKED, b"hello", b"5\r\nhello\r\n0\r\n\r\n"),
        (CHUNKED, b"", b"0\r\n\r\n"),
    ],
)
def test_a_whole_request_is_one_write(length: int, data: bytes, body: bytes) -> None:
    talk = conversation()
    head = made_request(b"/a", b"Host: shop.test", method=b"POST")
    head.length = length
    talk.ask(head, data)
    assert talk.wire.writes == [HEAD + OURS + b"\r\n\r\n" + body]


def test_a_body_of_a_known_length_goes_as_it_is() -> None:
    assert posted(5, b"he", b"llo").wire.written == HEAD + OURS + b"\r\n\r\nhello"


def test_a_body_of_an_unknown_length_goes_in_chunks() -> None:
    talk = posted(CHUNKED, b"he", b"llo", trailers=(b"X-Sum: 1",))
    assert talk.wire.written == HEAD + OURS + b"\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n"


def test_the_first_data_go_with_the_head() -> None:
    talk = conversation()
    head = made_request(b"/a", b"Host: shop.test", method=b"POST")
    head.length = CHUNKED
    talk.ask(head, b"first", end=False)
    assert talk.wire.writes == [HEAD + OURS + b"\r\n\r\n5\r\nfirst\r\n"]


def test_the_answer_may_come_before_the_request_is_complete() -> None:
    talk = conversation()
    head = made_request(b"/a", b"Host: shop.test", method=b"POST")
    head.length = 10
    heard = talk.ask(head, b"first", end=False)
    talk.says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    assert heard.line == b"HTTP/1.1 403 Forbidden"
    assert heard.ending == "complete"


def test_a_chunked_request_leaves_no_trace_in_the_next() -> None:
    talk = posted(CHUNKED, b"hi").says(HELLO)
    talk.wire.writes.clear()
    head = made_request(b"/a", b"Host: shop.test", method=b"POST")
    head.length = 2
    talk.ask(head, end=False)
    talk.codec.send_data(b"hi")
    talk.codec.send_end(())
    assert talk.wire.written == HEAD + OURS + b"\r\n\r\nhi"


@pytest.mark.parametrize("first", [b"HEAD", b"GET"])
def test_each_response_is_read_by_its_own_requests_method(first: bytes) -> None:
    talk = BackendConversation(first).says(HELLO if first == b"GET" else HELLO.removesuffix(b"hello"))
    assert talk.codec.reusable
    heard = talk.ask(made_request(method=b"GET" if first == b"HEAD" else b"HEAD"))
    talk.says(HELLO if first == b"HEAD" else HELLO.removesuffix(b"hello"))
    assert heard.body == (b"hello" if first == b"HEAD" else b"")
    assert heard.ending == "complete"
    assert talk.codec.reusable
