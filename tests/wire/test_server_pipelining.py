"""Requests in a row: one at a time and in order; what waits is bounded, by not reading on."""

from __future__ import annotations

import pytest

from tests.core.messages import made_response
from tests.wire.recording import AT_ONCE, NEVER, OURS, ClientConversation
from tests.wire.test_server_requests import CHUNKED, get, post


def numbered(number: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: shop.test\r\n\r\n" % number


def waiting(*pieces: bytes) -> ClientConversation:
    """A client whose first request is heard and not answered yet."""
    return ClientConversation(answers=NEVER).says(*pieces)


def heard(conversation: ClientConversation) -> list[bytes]:
    return [each.line.removesuffix(b" HTTP/1.1") for each in conversation.requests]


def test_the_next_request_waits_for_its_turn() -> None:
    conversation = waiting(numbered(1) + numbered(2) + numbered(3))
    assert heard(conversation) == [b"GET /1"]
    conversation.answer()
    assert heard(conversation) == [b"GET /1", b"GET /2"]
    conversation.answer()
    assert heard(conversation) == [b"GET /1", b"GET /2", b"GET /3"]
    conversation.answer()
    assert conversation.codec.idle
    assert conversation.wire.reading


def flooded(conversation: ClientConversation) -> int:
    """Sends requests for as long as they are read, at most ten million bytes; how many requests."""
    request = get(b"X-Large: " + b"x" * 1000)
    count = 0
    while conversation.wire.reading and count < 10_000:
        conversation.says(request)
        count += 1
    return count


def test_a_client_that_asks_faster_than_it_is_answered_is_read_no_further() -> None:
    """Some may wait here, since only reading tells when a client goes away; not any number of them."""
    conversation = waiting(numbered(1))
    count = flooded(conversation)
    assert not conversation.wire.reading
    assert 1 <= count < 1000
    for number in range(count):
        assert len(conversation.requests) == number + 1
        conversation.answer()
    assert conversation.wire.reading
    assert len(conversation.requests) == count + 1


def test_a_client_that_waits_for_its_answers_is_read_all_the_time() -> None:
    conversation = ClientConversation(answers=AT_ONCE)
    assert flooded(conversation) == 10_000
    assert conversation.wire.reading


def test_what_comes_though_nobody_reads_waits_too() -> None:
    conversation = waiting(numbered(1), numbered(2)[:9], numbered(2)[9:], numbered(3))
    assert heard(conversation) == [b"GET /1"]
    conversation.answer()
    conversation.answer()
    assert heard(conversation) == [b"GET /1", b"GET /2", b"GET /3"]


def test_a_request_that_is_here_in_part_is_read_on() -> None:
    conversation = waiting(numbered(1) + numbered(2)[:9])
    conversation.answer()
    assert conversation.wire.reading
    assert conversation.codec.reading_head
    conversation.says(numbered(2)[9:])
    assert heard(conversation) == [b"GET /1", b"GET /2"]


def test_answers_go_out_in_order() -> None:
    conversation = waiting(*[numbered(number) for number in (1, 2, 3)])
    for number in (b"1", b"2", b"3"):
        conversation.codec.send_head(made_response(length=1), OURS, number, True)
        conversation.answer()
    assert [message[-1:] for message in conversation.wire.writes] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("behind", [get(), b"\r\n", b"garbage\r\n\r\n"])
def test_nothing_is_read_behind_a_request_that_closes(behind: bytes) -> None:
    conversation = waiting(get(b"Connection: close") + behind, behind)
    assert not conversation.codec.keep_alive
    conversation.answer()
    conversation.says(behind)
    assert len(conversation.requests) == 1
    assert conversation.refused == []


def test_nothing_is_read_after_the_end() -> None:
    conversation = waiting(numbered(1))
    conversation.codec.close()
    conversation.says(numbered(2))
    assert heard(conversation) == [b"GET /1"]
    assert not conversation.codec.keep_alive


def test_what_waits_is_forgotten_at_the_end() -> None:
    conversation = waiting(numbered(1) + numbered(2))
    conversation.codec.close()
    assert heard(conversation) == [b"GET /1"]
    conversation.says(b"\r\n")
    assert heard(conversation) == [b"GET /1"]


class TestBackPressure:
    """The exchange holds the client back while its backend takes no more."""

    def test_pause_and_resume(self) -> None:
        conversation = waiting(post(CHUNKED))
        conversation.codec.pause()
        assert not conversation.wire.reading
        conversation.codec.resume()
        assert conversation.wire.reading

    def test_resuming_what_was_not_paused_changes_nothing(self) -> None:
        conversation = waiting(numbered(1))
        flooded(conversation)
        conversation.codec.resume()
        assert not conversation.wire.reading
        assert len(conversation.requests) == 1

    def test_a_backend_that_takes_more_again_does_not_let_in_a_flood(self) -> None:
        conversation = waiting(post(b"Content-Length: 2", body=b"h"))
        conversation.says(b"i")
        flooded(conversation)
        conversation.codec.pause()
        conversation.codec.resume()
        assert not conversation.wire.reading
        assert len(conversation.requests) == 1

    def test_a_pause_ends_with_its_exchange(self) -> None:
        """The body was complete, the answer came before the backend had taken all of it."""
        conversation = waiting(post(b"Content-Length: 2", body=b"h"))
        conversation.codec.pause()
        conversation.says(b"i")
        conversation.answer()
        assert conversation.wire.reading
        conversation.says(numbered(2))
        assert len(conversation.requests) == 2

    def test_a_pause_ends_with_its_exchange_though_the_next_request_waits(self) -> None:
        conversation = waiting(post(b"Content-Length: 2", body=b"h"))
        conversation.codec.pause()
        conversation.says(b"i" + numbered(2) + numbered(3)[:5])
        conversation.answer()
        assert heard(conversation) == [b"POST /", b"GET /2"]
        conversation.answer()
        assert conversation.wire.reading

    def test_what_comes_late_while_paused_is_still_told(self) -> None:
        """A transport may have had bytes at hand when it was paused."""
        conversation = waiting(post(b"Content-Length: 2"))
        conversation.codec.pause()
        conversation.says(b"hi")
        assert conversation.requests[0].body == b"hi"


def test_a_refusal_behind_a_request_waits_for_its_turn() -> None:
    conversation = waiting(numbered(1) + b"broken\r\n\r\n")
    assert conversation.refused == []
    conversation.answer()
    assert len(conversation.refused) == 1
    assert heard(conversation) == [b"GET /1"]
