"""Responses as they go to clients: what tells the body's end, and what becomes of the connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from lb.core.message import CHUNKED, UNTIL_CLOSE, Response
from tests.core.messages import made_response
from tests.wire.recording import NEVER, OURS, ClientConversation
from tests.wire.test_server_requests import HOST, get

GET = get()
HEAD = b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n"
CLOSING = get(b"Connection: close")
OLD = b"GET / HTTP/1.0\r\n" + HOST + b"\r\n"
OLD_STAYING = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
OLD_HEAD = b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"

LENGTH_5 = b"Content-Length: 5"
IN_CHUNKS = b"Transfer-Encoding: chunked"
CLOSE = b"Connection: close"
KEEP = b"Connection: keep-alive"


@dataclass
class Answer:
    """What went out: the head taken apart, the body as it lies on the wire."""

    line: bytes
    fields: set[bytes]
    body: bytes
    writes: int
    keep_alive: bool


def answered(
    asked: bytes,
    response: Response,
    *data: bytes,
    at_once: bool = True,
    trailers: Sequence[bytes] = (),
) -> Answer:
    """The client asks, and gets this response: as a whole, or its head, its data and its end apart."""
    conversation = ClientConversation(answers=NEVER).says(asked)
    codec = conversation.codec
    if at_once:
        codec.send_head(response, OURS, b"".join(data), True)
    else:
        codec.send_head(response, OURS, b"", False)
        for piece in data:
            codec.send_data(piece)
        codec.send_end(trailers)
    head, _, body = conversation.wire.written.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    assert len(fields) == len(set(fields))
    assert OURS in fields
    return Answer(line, set(fields) - {OURS}, body, len(conversation.wire.writes), codec.keep_alive)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    ("asked", "length", "fields", "body", "keep_alive"),
    [
        pytest.param(GET, 5, {LENGTH_5}, b"hello", True, id="a length"),
        pytest.param(CLOSING, 5, {LENGTH_5, CLOSE}, b"hello", False, id="a length, and a close"),
        pytest.param(GET, CHUNKED, {IN_CHUNKS}, b"5\r\nhello\r\n0\r\n\r\n", True, id="chunked"),
        pytest.param(
            CLOSING, CHUNKED, {IN_CHUNKS, CLOSE}, b"5\r\nhello\r\n0\r\n\r\n", False, id="chunked, and a close"
        ),
        pytest.param(
            GET, UNTIL_CLOSE, {IN_CHUNKS}, b"5\r\nhello\r\n0\r\n\r\n", True, id="until close becomes chunked"
        ),
        pytest.param(OLD, 5, {LENGTH_5, CLOSE}, b"hello", False, id="HTTP/1.0 with a length"),
        pytest.param(OLD_STAYING, 5, {LENGTH_5, KEEP}, b"hello", True, id="HTTP/1.0 that stays"),
        pytest.param(OLD, CHUNKED, {CLOSE}, b"hello", False, id="HTTP/1.0 knows no chunks"),
        pytest.param(
            OLD_STAYING, CHUNKED, {CLOSE}, b"hello", False, id="HTTP/1.0 can't stay without a length"
        ),
        pytest.param(OLD_STAYING, UNTIL_CLOSE, {CLOSE}, b"hello", False, id="HTTP/1.0 until close"),
    ],
)
def test_framing(
    asked: bytes, length: int, fields: set[bytes], body: bytes, keep_alive: bool, at_once: bool
) -> None:
    answer = answered(asked, made_response(length=length), b"hello", at_once=at_once)
    assert answer.line == b"HTTP/1.1 200 OK"
    assert (answer.fields, answer.body, answer.keep_alive) == (fields, body, keep_alive)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    ("asked", "status", "length", "fields"),
    [
        pytest.param(HEAD, b"200 OK", 5, {LENGTH_5}, id="HEAD tells the length"),
        pytest.param(HEAD, b"200 OK", UNTIL_CLOSE, set(), id="HEAD of a length unknown"),
        pytest.param(HEAD, b"200 OK", CHUNKED, set(), id="HEAD of something chunked"),
        pytest.param(OLD_HEAD, b"200 OK", UNTIL_CLOSE, {KEEP}, id="HEAD in HTTP/1.0 can stay"),
        pytest.param(GET, b"204 No Content", UNTIL_CLOSE, set(), id="204"),
        pytest.param(GET, b"304 Not Modified", UNTIL_CLOSE, set(), id="304"),
        pytest.param(GET, b"304 Not Modified", 5, {LENGTH_5}, id="304 tells the length it would have"),
        pytest.param(OLD_STAYING, b"204 No Content", UNTIL_CLOSE, {KEEP}, id="204 in HTTP/1.0"),
        pytest.param(CLOSING, b"204 No Content", UNTIL_CLOSE, {CLOSE}, id="204 and a close"),
    ],
)
def test_without_a_body(asked: bytes, status: bytes, length: int, fields: set[bytes], at_once: bool) -> None:
    answer = answered(asked, made_response(status, length=length), at_once=at_once)
    assert answer.body == b""
    assert answer.fields == fields
    assert answer.keep_alive is (asked is not CLOSING)


@pytest.mark.parametrize("length", [5, CHUNKED, UNTIL_CLOSE])
@pytest.mark.parametrize("asked", [HEAD, OLD_HEAD])
def test_a_head_never_gets_a_body(asked: bytes, length: int) -> None:
    """Also of an answer that we make ourselves, which comes with one."""
    assert answered(asked, made_response(length=length), b"hello").body == b""


@pytest.mark.parametrize("length", [5, CHUNKED, UNTIL_CLOSE, 0])
@pytest.mark.parametrize("asked", [GET, HEAD, CLOSING, OLD, OLD_STAYING])
def test_a_message_that_is_here_leaves_in_one_write(asked: bytes, length: int) -> None:
    data = b"" if length == 0 else b"hello"
    assert answered(asked, made_response(length=length), data).writes == 1


def test_each_piece_is_a_chunk() -> None:
    answer = answered(GET, made_response(length=CHUNKED), b"hello", b" ", b"world" * 4, at_once=False)
    assert answer.body == b"5\r\nhello\r\n1\r\n \r\n14\r\nworldworldworldworld\r\n0\r\n\r\n"


def test_pieces_of_a_known_length_go_as_they_are() -> None:
    answer = answered(GET, made_response(length=5), b"he", b"llo", at_once=False)
    assert answer.body == b"hello"


def test_head_and_first_data_share_a_write() -> None:
    conversation = ClientConversation(answers=NEVER).says(GET)
    conversation.codec.send_head(made_response(length=CHUNKED), OURS, b"first", False)
    assert conversation.wire.written.endswith(b"\r\n\r\n5\r\nfirst\r\n")
    assert len(conversation.wire.writes) == 1


def test_trailers_go_on_where_they_can() -> None:
    trailers = (b"X-Sum: 1", b"X-Other: 2")
    takes = get(b"TE: gzip, Trailers")
    answer = answered(takes, made_response(length=CHUNKED), b"hi", at_once=False, trailers=trailers)
    assert answer.body == b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n"
    for asked in (GET, get(b"TE: gzip")):  # who doesn't say so may take them for something else
        answer = answered(asked, made_response(length=CHUNKED), b"hi", at_once=False, trailers=trailers)
        assert answer.body == b"2\r\nhi\r\n0\r\n\r\n"
    for asked, length in ((OLD, CHUNKED), (GET, 2), (HEAD, CHUNKED)):
        data = () if asked == HEAD else (b"hi",)
        answer = answered(asked, made_response(length=length), *data, at_once=False, trailers=trailers)
        assert answer.body == b"".join(data)


def test_only_an_end_that_the_connection_tells_is_marked() -> None:
    for asked, length, told in (
        (OLD, CHUNKED, True),
        (OLD, 5, False),
        (GET, CHUNKED, False),
        (GET, 5, False),
    ):
        conversation = ClientConversation(answers=NEVER).says(asked)
        conversation.codec.send_head(made_response(length=length), OURS, b"", False)
        assert conversation.codec.ends_with_connection is told


def test_who_wants_the_connection_to_end_is_heeded() -> None:
    """As while draining, or where the request's body is not wanted."""
    conversation = ClientConversation(answers=NEVER).says(GET)
    conversation.codec.keep_alive = False
    conversation.codec.send_head(made_response(length=5), OURS, b"hello", True)
    assert CLOSE + b"\r\n" in conversation.wire.written


def test_one_response_leaves_no_trace_in_the_next() -> None:
    """Chunks, a HEAD and HTTP/1.0's keep-alive behind each other."""
    conversation = ClientConversation(answers=NEVER)
    bodies = []
    for asked, length, data in (
        (GET, CHUNKED, b"one"),
        (GET, 3, b"two"),
        (HEAD, CHUNKED, b""),
        (OLD_STAYING, 3, b"two"),
        (GET, CHUNKED, b"six"),
    ):
        conversation.says(asked)
        conversation.wire.writes.clear()
        conversation.codec.send_head(made_response(length=length), OURS, b"", False)
        if data:
            conversation.codec.send_data(data)
        conversation.codec.send_end(())
        bodies.append(conversation.wire.written.partition(b"\r\n\r\n")[2])
        conversation.answer()
    assert bodies == [b"3\r\none\r\n0\r\n\r\n", b"two", b"", b"two", b"3\r\nsix\r\n0\r\n\r\n"]


def test_a_response_that_left_at_once_leaves_no_trace_either() -> None:
    conversation = ClientConversation(answers=NEVER).says(GET)
    conversation.codec.send_head(made_response(length=CHUNKED), OURS, b"hello", True)
    conversation.answer()
    conversation.says(GET)
    conversation.wire.writes.clear()
    conversation.codec.send_head(made_response(length=5), OURS, b"", False)
    conversation.codec.send_data(b"hello")
    conversation.codec.send_end(())
    assert conversation.wire.written.partition(b"\r\n\r\n")[2] == b"hello"


class TestInterim:
    def test_it_goes_on(self) -> None:
        conversation = ClientConversation(answers=NEVER).says(GET)
        conversation.codec.send_interim(Response(103, [b"HTTP/1.1 103 Early Hints", b"Link: </a>"], 0))
        assert conversation.wire.written == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

    def test_http10_knows_none(self) -> None:
        conversation = ClientConversation(answers=NEVER).says(OLD)
        conversation.codec.send_interim(Response(100, [b"HTTP/1.1 100 Continue"], 0))
        assert conversation.wire.writes == []


def test_a_refusal_is_answered_and_closes() -> None:
    """There is no request then, and the answer is in HTTP/1.1."""
    conversation = ClientConversation(answers=NEVER).says(b"nonsense\r\n\r\n")
    assert len(conversation.refused) == 1
    conversation.codec.send_head(made_response(b"400 Bad Request", length=5), OURS, b"hello", True)
    [answer] = conversation.wire.writes
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nhello")
