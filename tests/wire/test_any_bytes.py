"""Whatever comes over the wire: no exception, no guess, and never another meaning at another cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.message import Limits
from tests.wire.recording import COMPLETE, LATER, BackendConversation, ClientConversation, cut

# Pieces that lead deep into a codec, good and bad ones.
REQUESTS = [
    b"GET / HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"HEAD / HTTP/1.0\r\n", b"GET http://a/ HTTP/1.1\r\n",
    b"Host: a\r\n", b"Host: a\r\n\r\n", b"Content-Length: 5\r\n", b"Content-Length: 5\r\n\r\nhello",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked \r\n\r\n", b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"X: y\r\n",
]  # fmt: skip
RESPONSES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No\r\n",
    b"HTTP/1.1 101 S\r\n", b"Content-Length: 5\r\n\r\nhello", b"Content-Length: 0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n", b"Connection: close\r\n", b"X: y\r\n",
]  # fmt: skip
CHUNKS = [b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nX-Sum: 1\r\n\r\n", b"hello", b"5;a=b\r\n"]
ENDS = [b"\r\n", b"\r\n\r\n", b"\r", b"\n", b" ", b":", b"\x00", b"\xff"]


def some_of(fragments: list[bytes]) -> st.SearchStrategy[bytes]:
    piece = (
        st.sampled_from([*fragments, *CHUNKS]) | st.sampled_from([*fragments, *ENDS]) | st.binary(max_size=6)
    )
    return st.lists(piece, max_size=12).map(b"".join)


places = st.lists(st.integers(0, 1000), max_size=8)
limits = st.sampled_from([Limits(), Limits(request_line=20, header_bytes=30, header_count=2, body=4)])


@settings(max_examples=300, deadline=None)
@given(some_of(REQUESTS), places, limits, st.booleans())
def test_a_client_may_send_anything(raw: bytes, places: list[int], limits: Limits, trusted: bool) -> None:
    conversation = ClientConversation(limits, trusted, answers=LATER).says(*cut(raw, places))
    for heard in conversation.requests[:-1]:
        assert heard.ending == COMPLETE
    assert conversation.codec.keep_alive or not conversation.codec.reading_head


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"GET", b"HEAD"]), some_of(RESPONSES), places, st.booleans())
def test_a_backend_may_send_anything(method: bytes, raw: bytes, places: list[int], clean: bool) -> None:
    conversation = BackendConversation(method).says(*cut(raw, places)).closes(clean)
    assert conversation.heard.ending  # it always comes to an end: the response's, or that of the connection
    assert not conversation.codec.reusable


@settings(max_examples=300, deadline=None)
@given(some_of(REQUESTS), places)
def test_the_cut_never_changes_which_requests_are_heard(raw: bytes, places: list[int]) -> None:
    whole, in_pieces = ClientConversation().says(raw), ClientConversation().says(*cut(raw, places))
    for conversation in (whole, in_pieces):  # of a body that broke off some may be told or not
        for heard in conversation.requests:
            if heard.ending != COMPLETE:
                heard.body = b""
    assert in_pieces.requests == whole.requests
    assert bool(in_pieces.refused) == bool(whole.refused)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"GET", b"HEAD"]), some_of(RESPONSES), places)
def test_the_cut_never_changes_which_response_is_heard(method: bytes, raw: bytes, places: list[int]) -> None:
    whole = BackendConversation(method).says(raw)
    in_pieces = BackendConversation(method).says(*cut(raw, places))
    assert in_pieces.heard.ending == whole.heard.ending
    assert in_pieces.codec.reusable == whole.codec.reusable
    if whole.heard.ending in ("", COMPLETE):
        assert in_pieces.heard == whole.heard
