"""The chunked coding by itself: read strictly, at every cut, and written so that it can be read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.wire.chunked import ChunkedError, ChunkedReader, chunk, last_chunk
from lb.wire.fields import Rules, request_rules, response_rules
from tests.wire.recording import cut, every_cut
from tests.wire.test_server_refusals import BROKEN_CHUNKS

BEYOND = b"GET / HTTP/1.1\r\n"


def read(*pieces: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Content, trailers, and what lies beyond the end."""
    reader = ChunkedReader(request_rules())
    content = beyond = b""
    for piece in pieces:
        if reader.done:
            beyond += piece
        else:
            data, beyond = reader.feed(piece)
            content += data
    assert reader.done, "the end was not seen"
    return content, reader.trailers, beyond


MESSAGES = {
    "nothing": (b"0\r\n\r\n", b"", []),
    "many zeros": (b"00000000\r\n\r\n", b"", []),
    "one chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello", []),
    "letters of both cases": (
        b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n",
        b"0123456789" * 2 + b"a",
        [],
    ),
    "zeros in front": (b"0005\r\nhello\r\n000\r\n\r\n", b"hello", []),
    "content like the coding": (b"7\r\n0\r\n\r\n0\r\r\n0\r\n\r\n", b"0\r\n\r\n0\r", []),
    "an extension": (b"2;a\r\nhi\r\n0;b\r\n\r\n", b"hi", []),
    "an extension with a value": (b"2;a=b;c=d\r\nhi\r\n0\r\n\r\n", b"hi", []),
    "an extension with spaces": (b"2 ; a = b\t;c\r\nhi\r\n0\r\n\r\n", b"hi", []),
    "a quoted extension": (b'2;a="b;\\"\t\xe9 c"\r\nhi\r\n0\r\n\r\n', b"hi", []),
    "trailers": (b"0\r\nX-A: 1\r\nX-B:\r\n\r\n", b"", [b"X-A: 1", b"X-B:"]),
    "trailers beyond ASCII": (b"0\r\nX-A: \xe9\t1\r\n\r\n", b"", [b"X-A: \xe9\t1"]),
    "trailers that may not pass": (
        b"0\r\nContent-Length: 1\r\ntransfer-encoding: x\r\nX-A: 1\r\nHOST: b\r\nAuthorization: c\r\n\r\n",
        b"",
        [b"X-A: 1"],
    ),
    "a line as long as it may be": (b"2;" + b"a" * 1022 + b"\r\nhi\r\n0\r\n\r\n", b"hi", []),
    "a long trailer": (
        b"0\r\nX-Signature: " + b"a" * 2000 + b"\r\n\r\n",
        b"",
        [b"X-Signature: " + b"a" * 2000],
    ),
}


@pytest.mark.parametrize(("raw", "content", "trailers"), MESSAGES.values(), ids=list(MESSAGES))
def test_at_every_cut_the_same_is_read(raw: bytes, content: bytes, trailers: list[bytes]) -> None:
    for pieces in every_cut(raw + BEYOND):
        assert read(*pieces) == (content, trailers, BEYOND), f"cut as {pieces[:2]}"


@pytest.mark.parametrize("raw", BROKEN_CHUNKS.values(), ids=list(BROKEN_CHUNKS))
def test_what_is_broken_is_refused(raw: bytes) -> None:
    with pytest.raises(ChunkedError):
        read(raw)


def too_long(size: int) -> dict[str, bytes]:
    return {"extension": b"2;" + b"a" * size, "trailers": b"0\r\n" + b"X: aaaaaa\r\n" * (size // 11)}


@pytest.mark.parametrize("what", too_long(0))
def test_what_has_no_end_is_refused_before_it_eats_the_memory(what: str) -> None:
    reader = ChunkedReader(request_rules())
    with pytest.raises(ChunkedError):  # noqa: PT012 - it may come anywhere
        for byte in too_long(40_000)[what]:
            reader.feed(bytes([byte]))


def test_it_is_not_done_before_the_last_byte() -> None:
    reader = ChunkedReader(request_rules())
    for byte in MESSAGES["trailers"][0]:
        assert not reader.done
        reader.feed(bytes([byte]))
    assert reader.done


def test_trailers_that_connection_named_end_here() -> None:
    reader = ChunkedReader(request_rules(), (b"x-named", b"x-other"))
    reader.feed(b"0\r\nX-Named: 1\r\nX-Stays: 2\r\nx-NAMED: 3\r\n\r\n")
    assert reader.trailers == [b"X-Stays: 2"]


@pytest.mark.parametrize("rules", [request_rules("X-Trace"), response_rules("X-Trace", "X-Backend")])
@pytest.mark.parametrize(
    "name", [b"X-Trace", b"x_trace", b"X.TRACE", b"X-Forwarded-For", b"X!Forwarded!Host"]
)
def test_a_trailer_can_t_be_one_of_our_fields(rules: Rules, name: bytes) -> None:
    reader = ChunkedReader(rules)
    reader.feed(b"0\r\n" + name + b": forged\r\nX-Tracer: 1\r\n\r\n")
    assert reader.trailers == [b"X-Tracer: 1"]


def test_extensions_are_bounded_over_a_whole_message() -> None:
    """Each may be as long as a line; all together may not, or they would be a body that nobody counts."""
    reader = ChunkedReader(request_rules())
    one = b"1;" + b"a" * 1000 + b"\r\nx\r\n"
    reader.feed(one * 16)
    with pytest.raises(ChunkedError, match="extensions"):
        reader.feed(one)


@given(
    st.lists(st.binary(min_size=1, max_size=600), max_size=8),
    st.lists(st.sampled_from([b"X-A: 1", b"x-sum:", b"X-B: a b"])),
    st.lists(st.integers(0, 5000), max_size=8),
)
def test_what_is_written_is_read_back(pieces: list[bytes], trailers: list[bytes], places: list[int]) -> None:
    raw = b"".join(map(chunk, pieces)) + last_chunk(trailers)
    assert read(*cut(raw + BEYOND, places)) == (b"".join(pieces), trailers, BEYOND)


@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"\r\n", b"0", b"5", b";a", b"hello", b"X: a"])))
def test_any_bytes_are_read_or_refused(pieces: list[bytes]) -> None:
    """Never more content than there were bytes, and at no cut another verdict."""

    def verdict(pieces: list[bytes]) -> tuple[str, bytes]:
        reader = ChunkedReader(request_rules())
        content = b""
        try:
            for piece in pieces:
                if piece and not reader.done:
                    content += reader.feed(piece)[0]
        except ChunkedError:
            return "refused", b""
        return ("done" if reader.done else "more"), content

    raw = b"".join(pieces)
    assert len(verdict([raw])[1]) <= len(raw)
    assert verdict([raw]) == verdict(pieces) == verdict([bytes([byte]) for byte in raw])
