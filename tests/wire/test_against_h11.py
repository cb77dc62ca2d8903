"""h11 on the other end: an independent reading, so that our own misreading can't agree with itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.message import CHUNKED, UNTIL_CLOSE
from tests.core.messages import made_response
from tests.wire.recording import (
    COMPLETE,
    NEVER,
    OURS,
    BackendConversation,
    ClientConversation,
    RequestHeard,
    ResponseHeard,
    cut,
)

Field = tuple[bytes, bytes]

VISIBLE = bytes(range(0x21, 0x7F))
TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def of(alphabet: bytes, least: int = 0, most: int = 12) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(list(alphabet)), min_size=least, max_size=most).map(bytes)


names = of(TOKEN, 1).map(b"X-".__add__) | st.sampled_from(
    [b"Accept", b"Cookie", b"User-Agent", b"content-type"]
)
values = of(VISIBLE + bytes(range(0x80, 0x100)) + b" \t", most=20).map(lambda value: value.strip(b" \t"))
# No field that our side sets or judges: those have tests of their own.
fields = st.lists(st.tuples(names, values), max_size=5).map(
    lambda found: [field for field in found if field[0].lower().replace(b"_", b"-") not in OURS_IN_LOWER]
)
OURS_IN_LOWER = {b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"}
targets = of(bytes(set(VISIBLE) - set(b'"#%<>?\\^`{}')), most=30).map(b"/".__add__)
methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"])
pieces = st.lists(st.binary(min_size=1, max_size=300), max_size=4)
places = st.lists(st.integers(0, 10_000), max_size=6)


@dataclass
class Message:
    """What is said by one side, or was understood by the other."""

    start: tuple[bytes, ...]
    fields: list[Field]
    body: bytes = b""
    trailers: tuple[Field, ...] = ()


def plain(headers: Sequence[Field]) -> list[Field]:
    """Fields in small letters, without what the framing and our own hand add."""
    added = {b"content-length", b"transfer-encoding", b"connection", b"host", b"x-request-id"}
    return [
        (bytes(name).lower(), bytes(value)) for name, value in headers if bytes(name).lower() not in added
    ]


def split(lines: Sequence[bytes]) -> list[Field]:
    return plain([(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)])


def framing(body: Sequence[bytes], chunked: bool) -> Field:
    if chunked:
        return b"Transfer-Encoding", b"chunked"
    return b"Content-Length", b"%d" % sum(map(len, body))


def sent(peer: h11.Connection, head: object, body: Sequence[bytes], trailers: Sequence[Field] = ()) -> bytes:
    """The bytes of a message as h11 writes it."""
    events = [head, *(h11.Data(data=piece) for piece in body), h11.EndOfMessage(headers=list(trailers))]
    return b"".join(peer.send(event) or b"" for event in events)  # type: ignore[arg-type]


def received(peer: h11.Connection, raw: Sequence[bytes], closes: bool = False) -> Message:
    """The message as h11 reads it."""
    message = Message((), [])
    for piece in [*raw, b""] if closes else raw:
        peer.receive_data(piece)
        while (event := peer.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                message.start = (event.method, event.target)
                message.fields = plain(list(event.headers))
            elif isinstance(event, h11.Response):
                message.start = (b"%d" % event.status_code, event.reason)
                message.fields = plain(list(event.headers))
            elif isinstance(event, h11.Data):
                message.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                message.trailers = tuple((bytes(name), bytes(value)) for name, value in event.headers)
                return message
    raise AssertionError("h11 saw no end of the message")


def asked(method: bytes, target: bytes = b"/") -> tuple[h11.Connection, bytes]:
    """An h11 client that has sent a request without a body, and its bytes."""
    client = h11.Connection(h11.CLIENT)
    head = h11.Request(method=method, target=target, headers=[(b"Host", b"shop.test")])
    return client, sent(client, head, [])


def understood(heard: RequestHeard) -> Message:
    method, target, _ = heard.line.split(b" ")
    return Message((method, target), split(heard.fields), heard.body, tuple(split(heard.trailers)))


@settings(deadline=None)
@given(methods, targets, fields, pieces, st.booleans(), places)
def test_a_request_that_h11_writes_is_heard_as_it_was_meant(
    method: bytes, target: bytes, headers: list[Field], body: list[bytes], chunked: bool, places: list[int]
) -> None:
    client = h11.Connection(h11.CLIENT)
    said = [(b"Host", b"shop.test"), *headers, framing(body, chunked)]
    trailers = ((b"x-sum", b"1"),) if chunked else ()
    head = h11.Request(method=method, target=target, headers=said)
    raw = sent(client, head, body, trailers)
    conversation = ClientConversation().says(*cut(raw, places))
    [heard] = conversation.requests
    assert (heard.ending, conversation.refused, heard.host) == (COMPLETE, [], b"shop.test")
    assert understood(heard) == Message((method, target), plain(headers), b"".join(body), trailers)


@settings(deadline=None)
@given(methods, targets, fields, pieces, st.booleans(), places)
def test_a_request_that_goes_on_is_read_by_h11_as_it_came(
    method: bytes, target: bytes, headers: list[Field], body: list[bytes], chunked: bool, places: list[int]
) -> None:
    """From client to backend: our two codecs, with h11 at both ends."""
    client = h11.Connection(h11.CLIENT)
    said = [(b"Host", b"shop.test"), *headers, framing(body, chunked)]
    head = h11.Request(method=method, target=target, headers=said)
    conversation = ClientConversation().says(sent(client, head, body))
    backend = BackendConversation().says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    backend.wire.writes.clear()
    backend.ask(conversation.heads[0], b"".join(body[:1]), end=False)
    for piece in body[1:]:
        backend.codec.send_data(piece)
    backend.codec.send_end([b"x-sum: 1"])
    message = received(h11.Connection(h11.SERVER), cut(backend.wire.written, places))
    trailers = ((b"x-sum", b"1"),) if chunked else ()
    assert message == Message((method, target), plain(headers), b"".join(body), trailers)


statuses = st.sampled_from([b"200 OK", b"201 Created", b"404 Not Found", b"503 Try\tlater \xe9", b"599 "])


@settings(deadline=None)
@given(
    method=st.sampled_from([b"GET", b"HEAD", b"POST"]),
    http10=st.booleans(),
    status=statuses,
    headers=fields,
    body=pieces,
    length=st.sampled_from([CHUNKED, UNTIL_CLOSE, 0]),
    at_once=st.booleans(),
    places=places,
)
def test_a_response_of_ours_is_read_by_h11_as_it_was_meant(
    method: bytes,
    http10: bool,
    status: bytes,
    headers: list[Field],
    body: list[bytes],
    length: int,
    at_once: bool,
    places: list[int],
) -> None:
    client, raw = asked(method)
    if http10:  # h11's clients speak 1.1; its bytes are made to say less
        raw = raw.replace(b" HTTP/1.1", b" HTTP/1.0")
    if method == b"HEAD":
        body = []
    conversation = ClientConversation(answers=NEVER).says(raw)
    lines = [b"%b: %b" % field for field in headers]
    response = made_response(status, *lines, length=length or sum(map(len, body)))
    codec = conversation.codec
    if at_once:
        codec.send_head(response, OURS, b"".join(body), True)
    else:
        codec.send_head(response, OURS, b"".join(body[:1]), False)
        for piece in body[1:]:
            codec.send_data(piece)
        codec.send_end(())
    message = received(client, cut(conversation.wire.written, places), closes=not codec.keep_alive)
    code, _, reason = status.partition(b" ")
    assert message == Message((code, reason), plain(headers), b"".join(body))


@settings(deadline=None)
@given(
    method=st.sampled_from([b"GET", b"HEAD", b"POST"]),
    code=st.sampled_from([200, 204, 304, 404, 500]),
    headers=fields,
    body=pieces,
    framed=st.sampled_from(["length", "chunked", "close"]),
    interim=st.integers(0, 3),
    places=places,
)
def test_a_response_that_h11_writes_is_heard_as_it_was_meant(
    method: bytes,
    code: int,
    headers: list[Field],
    body: list[bytes],
    framed: str,
    interim: int,
    places: list[int],
) -> None:
    server = h11.Connection(h11.SERVER)
    received(server, [asked(method)[1]])
    if method == b"HEAD" or code in (204, 304):
        body = []
    said = [] if framed == "close" or code == 204 else [framing(body, framed == "chunked")]
    hints = [h11.InformationalResponse(status_code=103, headers=[(b"link", b"</a>")]) for _ in range(interim)]
    raw = b"".join(server.send(hint) or b"" for hint in hints)
    raw += sent(server, h11.Response(status_code=code, reason=b"Well", headers=[*headers, *said]), body)
    conversation = BackendConversation(method).says(*cut(raw, places))
    heard: ResponseHeard = conversation.heard
    assert heard.interim == interim * [(b"HTTP/1.1 103 ", b"link: </a>")]
    if server.our_state is h11.MUST_CLOSE:
        conversation.closes()
    assert (heard.ending, heard.line) == (COMPLETE, b"HTTP/1.1 %d Well" % code)
    assert Message((), split(heard.fields), heard.body) == Message((), plain(headers), b"".join(body))
    assert conversation.codec.reusable is (server.our_state is not h11.MUST_CLOSE)
