"""What a backend may do wrong, and the failure that it gives; nobody is told of anything after it."""

from __future__ import annotations

import pytest

from tests.core.messages import made_request
from tests.wire.recording import COMPLETE, BackendConversation, every_cut
from tests.wire.test_client_responses import CONTINUE, HELLO


def with_fields(*fields: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *fields, b"", b"hello"])


def with_start(start: bytes) -> bytes:
    return start + b"\r\nContent-Length: 5\r\n\r\nhello"


BAD_HEADS = {
    "not HTTP": b"Hello, World!\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/0.9": b"<html>\r\n\r\n</html>",
    "a version of ours alone": b"HTTP/1.1\r\n\r\n",
    "HTTP/2.0": with_start(b"HTTP/2.0 200 OK"),
    "HTTP/1.2": with_start(b"HTTP/1.2 200 OK"),
    "HTTP/0.9 in words": with_start(b"HTTP/0.9 200 OK"),
    "small letters": with_start(b"http/1.1 200 OK"),
    "two spaces": with_start(b"HTTP/1.1  200 OK"),
    "a tab": with_start(b"HTTP/1.1\t200 OK"),
    "no status": with_start(b"HTTP/1.1 OK"),
    "a status of two digits": with_start(b"HTTP/1.1 20 OK"),
    "a status of four digits": with_start(b"HTTP/1.1 2000 OK"),
    "a status below 100": with_start(b"HTTP/1.1 099 OK"),
    "a status with a sign": with_start(b"HTTP/1.1 +20 OK"),
    "a status of superscripts": with_start(b"HTTP/1.1 2\xb2\xb2 OK"),
    "a line feed in front": b"\n" + HELLO,
    "an empty line in front": b"\r\n" + HELLO,
    "a NUL in the reason": with_start(b"HTTP/1.1 200 O\x00K"),
    "a control character in the reason": with_start(b"HTTP/1.1 200 \x1b[31mOK"),
    "a carriage return in the reason": with_start(b"HTTP/1.1 200 O\rK"),
    "line feeds alone": HELLO.replace(b"\r\n", b"\n"),
    "a line feed in a field": with_fields(b"Content-Length: 5", b"X: a\nY: b"),
    "a carriage return in a field": with_fields(b"Content-Length: 5", b"X: a\rY: b"),
    "a folded field": with_fields(b"Content-Length: 5", b"X: a", b" b"),
    "a space before the colon": with_fields(b"Content-Length: 5", b"X : a"),
    "no colon": with_fields(b"Content-Length: 5", b"X"),
    "no name": with_fields(b"Content-Length: 5", b": a"),
    "a NUL in a value": with_fields(b"Content-Length: 5", b"X: \x00"),
    "a control character in a value": with_fields(b"Content-Length: 5", b"X: \x01"),
    "a name beyond ASCII": with_fields(b"Content-Length: 5", b"X\xe9: a"),
    "101 that nobody asked for": b"HTTP/1.1 101 Other\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "a head without an end": b"HTTP/1.1 200 OK\r\n"
    + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 20_000,
}

BAD_FRAMINGS = {
    "two lengths": (b"Content-Length: 5", b"Content-Length: 5"),
    "two lengths that differ": (b"Content-Length: 5", b"Content-Length: 6"),
    "a list of lengths": (b"Content-Length: 5, 5",),
    "a length with a plus": (b"Content-Length: +5",),
    "a length with a minus": (b"Content-Length: -5",),
    "a length with an underscore": (b"Content-Length: 0_5",),
    "a length in hexadecimal": (b"Content-Length: 0x5",),
    "a length of nothing": (b"Content-Length:",),
    "a length of a superscript": (b"Content-Length: \xb2",),
    "a length with a vertical tab": (b"Content-Length: \x0b5",),
    "a length with a no-break space": (b"Content-Length: 5\xa0",),
    "a length of twenty digits": (b"Content-Length: " + b"9" * 20,),
    "a length of five thousand digits": (b"Content-Length: " + b"9" * 5000,),
    "a length and a coding": (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "a coding and a length": (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "two codings": (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "gzip": (b"Transfer-Encoding: gzip",),
    "gzip, and then chunked": (b"Transfer-Encoding: gzip, chunked",),
    "identity": (b"Transfer-Encoding: identity",),
    "a Kelvin sign": ("Transfer-Encoding: chun\N{KELVIN SIGN}ed".encode(),),
    "a coding of nothing": (b"Transfer-Encoding:",),
}

BAD_CHUNKS = {
    "a size that is no number": b"hello\r\n",
    "a plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "a line feed alone": b"5\nhello\n0\n\n",
    "data longer than said": b"4\r\nhello\r\n0\r\n\r\n",
    "a broken trailer": b"5\r\nhello\r\n0\r\nX : a\r\n\r\n",
}


def cuts(raw: bytes) -> list[list[bytes]]:
    """All of them, or of a long message some."""
    return list(every_cut(raw)) if len(raw) < 1000 else [[raw], [raw[:30], raw[30:999], raw[999:]]]


@pytest.mark.parametrize(
    "raw",
    [*BAD_HEADS.values(), *(with_fields(*fields) for fields in BAD_FRAMINGS.values())],
    ids=[*BAD_HEADS, *BAD_FRAMINGS],
)
def test_a_bad_head_is_a_bad_response(raw: bytes) -> None:
    for pieces in cuts(raw):
        conversation = BackendConversation().says(*pieces, HELLO).closes()
        heard = conversation.heard
        assert (heard.ending, heard.line, heard.body) == ("bad_response", b"", b""), f"cut as {pieces[:2]}"
        assert not conversation.codec.reusable


def test_a_coding_in_http10_is_a_bad_response() -> None:
    raw = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    for pieces in every_cut(raw):
        assert BackendConversation().says(*pieces).heard.ending == "bad_response"


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=list(BAD_CHUNKS))
def test_a_broken_chunk_is_a_bad_response(body: bytes) -> None:
    for pieces in every_cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body):
        conversation = BackendConversation().says(*pieces, HELLO).closes()
        assert conversation.heard.ending == "bad_response", f"cut as {pieces[:2]}"
        assert not conversation.codec.reusable


class TestInterimFlood:
    def test_some_are_passed_on(self) -> None:
        conversation = BackendConversation().says(10 * CONTINUE + HELLO)
        assert conversation.heard.ending == COMPLETE
        assert len(conversation.heard.interim) == 10

    @pytest.mark.parametrize("pieces", [[5000 * CONTINUE], 5000 * [CONTINUE]], ids=["at once", "one by one"])
    def test_too_many_are_a_bad_response(self, pieces: list[bytes]) -> None:
        heard = BackendConversation().says(*pieces, HELLO).heard
        assert heard.ending == "bad_response"
        assert len(heard.interim) < 100

    def test_they_are_counted_for_each_response(self) -> None:
        conversation = BackendConversation()
        for _ in range(20):
            conversation.says(10 * CONTINUE + HELLO)
            assert conversation.codec.reusable
            conversation.ask(made_request())


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE_HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "clean", "ending"),
    [
        pytest.param(b"", True, "reset", id="nothing"),
        pytest.param(b"", False, "reset", id="nothing, by a reset"),
        pytest.param(b"HTTP/1.1 2", True, "bad_response", id="in the head"),
        pytest.param(b"HTTP/1.1 2", False, "bad_response", id="in the head, by a reset"),
        pytest.param(HELLO[:-1], True, "response_cut", id="in a body of a length"),
        pytest.param(HELLO[:-5], True, "response_cut", id="before a body of a length"),
        pytest.param(HELLO[:-1], False, "response_cut", id="in a body of a length, by a reset"),
        pytest.param(CHUNKED_HEAD, True, "response_cut", id="before the first chunk"),
        pytest.param(CHUNKED_HEAD + b"5\r\nhe", True, "response_cut", id="in a chunk"),
        pytest.param(CHUNKED_HEAD + b"5\r\nhello\r\n", True, "response_cut", id="between chunks"),
        pytest.param(
            CHUNKED_HEAD + b"5\r\nhello\r\n0\r\n", True, "response_cut", id="before the last line end"
        ),
        pytest.param(UNTIL_CLOSE_HEAD + b"hello", True, COMPLETE, id="where the end tells the end"),
        pytest.param(UNTIL_CLOSE_HEAD, True, COMPLETE, id="where the end tells the end, of nothing"),
        pytest.param(UNTIL_CLOSE_HEAD + b"hello", False, "response_cut", id="where it would, by a reset"),
        pytest.param(HELLO, True, COMPLETE, id="after the response"),
        pytest.param(HELLO, False, COMPLETE, id="after the response, by a reset"),
    ],
)
def test_the_backend_closes(said: bytes, clean: bool, ending: str) -> None:
    conversation = BackendConversation()
    if said:
        conversation.says(said)
    conversation.closes(clean)
    assert conversation.heard.ending == ending
    assert not conversation.codec.reusable
    conversation.says(HELLO).closes(not clean)
    assert conversation.heard.ending == ending


def test_only_an_interim_response_is_no_answer() -> None:
    conversation = BackendConversation().says(CONTINUE).closes()
    assert conversation.heard.ending in ("reset", "response_cut", "bad_response")
    assert not conversation.heard.line


@pytest.mark.parametrize(
    "said", [b"", HELLO[:20], HELLO[:-2], CHUNKED_HEAD + b"5\r\nhe", UNTIL_CLOSE_HEAD, HELLO]
)
def test_who_has_lost_interest_is_told_nothing(said: bytes) -> None:
    conversation = BackendConversation()
    if said:
        conversation.says(said)
    told = (conversation.heard.body, conversation.heard.ending)
    conversation.codec.detach()
    conversation.says(HELLO, b"x").closes()
    assert (conversation.heard.body, conversation.heard.ending) == told
    assert not conversation.codec.reusable


def test_who_loses_interest_at_an_interim_response_is_told_nothing_more() -> None:
    conversation = BackendConversation()
    interims = []

    def lose_interest(response: object) -> None:
        interims.append(response)
        conversation.codec.detach()

    conversation.heard.on_interim = lose_interest  # type: ignore[method-assign]
    conversation.says(3 * CONTINUE + HELLO)
    assert len(interims) == 1
    assert not conversation.heard.ending
