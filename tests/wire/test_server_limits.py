"""How much of a request is taken: what just fits passes, one byte more does not, at every cut alike."""

from __future__ import annotations

import pytest

from lb.core.message import Limits
from tests.wire.recording import COMPLETE, ClientConversation, every_cut
from tests.wire.test_server_requests import CHUNKED, post

PLENTY = 10_000


def lines(*fields: bytes, start: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([start, b"Host: a", *fields, b"", b""])


def verdicts(raw: bytes, limits: Limits) -> set[str]:
    """What becomes of this request at any cut."""
    found = set()
    for pieces in every_cut(raw):
        conversation = ClientConversation(limits).says(*pieces)
        found.add(conversation.refused[0] if conversation.refused else conversation.requests[0].ending)
    return found


class TestRequestLine:
    line = b"GET /a/long/target?with=a&query HTTP/1.1"

    def test_it_fits(self) -> None:
        assert verdicts(lines(start=self.line), Limits(request_line=len(self.line))) == {COMPLETE}

    def test_it_is_one_byte_too_long(self) -> None:
        assert verdicts(lines(start=self.line), Limits(request_line=len(self.line) - 1)) == {"uri_too_long"}

    def test_the_fields_do_not_count(self) -> None:
        raw = lines(b"X: " + b"x" * 100, start=self.line)
        assert verdicts(raw, Limits(request_line=len(self.line))) == {COMPLETE}

    def test_one_without_an_end_is_refused_as_soon_as_it_is_too_long(self) -> None:
        conversation = ClientConversation(Limits(request_line=100)).says(b"GET /")
        fed = 5
        while not conversation.refused and fed < PLENTY:
            conversation.says(b"aaaaaaaaaa")
            fed += 10
        assert conversation.refused == ["uri_too_long"]
        assert fed <= 115


class TestFields:
    """What exactly counts is the fields, and a few bytes for the ends of lines."""

    fields = (b"X-One: 1", b"X-Two: 22", b"X-Three: " + b"3" * 50)
    size = sum(len(line) + 2 for line in (b"Host: a", *fields))

    def test_they_fit(self) -> None:
        assert verdicts(lines(*self.fields), Limits(header_bytes=self.size + 4)) == {COMPLETE}

    def test_they_are_too_large(self) -> None:
        assert verdicts(lines(*self.fields), Limits(header_bytes=self.size - 1)) == {"head_too_large"}

    def test_the_request_line_does_not_count(self) -> None:
        raw = lines(*self.fields, start=b"GET /" + b"a" * 1000 + b" HTTP/1.1")
        assert verdicts(raw, Limits(header_bytes=self.size + 4)) == {COMPLETE}

    def test_a_head_without_an_end_is_refused_before_it_eats_the_memory(self) -> None:
        limits = Limits(request_line=100, header_bytes=500, header_count=PLENTY)
        conversation = ClientConversation(limits).says(b"GET / HTTP/1.1\r\n")
        fed = 0
        while not conversation.refused and fed < PLENTY:
            conversation.says(b"X: yyyyy\r\n")
            fed += 10
        assert conversation.refused == ["head_too_large"]
        assert fed <= 610

    @pytest.mark.parametrize(("count", "verdict"), [(4, COMPLETE), (3, "head_too_large")])
    def test_they_are_counted(self, count: int, verdict: str) -> None:
        assert verdicts(lines(*self.fields), Limits(header_count=count)) == {verdict}

    def test_many_tiny_ones_are_counted_too(self) -> None:
        assert verdicts(lines(*[b"a:"] * 128), Limits(header_count=128)) == {"head_too_large"}
        assert verdicts(lines(*[b"a:"] * 127), Limits(header_count=128)) == {COMPLETE}


class TestBody:
    hello = post(b"Content-Length: 5", body=b"hello")

    def test_a_length_that_fits(self) -> None:
        assert verdicts(self.hello, Limits(body=5)) == {COMPLETE}

    def test_a_length_that_is_too_large_is_refused_before_anything_is_told(self) -> None:
        assert verdicts(self.hello, Limits(body=4)) == {"body_too_large"}
        conversation = ClientConversation(Limits(body=4)).says(self.hello)
        assert conversation.requests == []

    def test_none_at_all(self) -> None:
        assert verdicts(self.hello, Limits(body=0)) == {"body_too_large"}
        assert verdicts(lines(), Limits(body=0)) == {COMPLETE}

    chunked = post(CHUNKED, body=b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")

    def test_chunks_that_fit(self) -> None:
        assert verdicts(self.chunked, Limits(body=5)) == {COMPLETE}

    @pytest.mark.parametrize("limit", [0, 2, 3, 4])
    def test_chunks_that_become_too_many(self, limit: int) -> None:
        for pieces in every_cut(self.chunked):
            conversation = ClientConversation(Limits(body=limit)).says(*pieces, lines())
            [heard] = conversation.requests
            assert heard.ending == "body_too_large"
            assert b"hello"[:limit].startswith(heard.body)
            assert conversation.refused == []
            assert not conversation.codec.keep_alive

    def test_each_request_is_counted_by_itself(self) -> None:
        conversation = ClientConversation(Limits(body=5)).says(3 * (self.hello + self.chunked))
        assert [heard.ending for heard in conversation.requests] == 6 * [COMPLETE]
