"""What is fuzzed: functions of any bytes, which raise where a promise is broken.

They know nothing of who makes up the bytes: the fuzzer does, and the replay of the corpus. Chance, such as
where bytes are cut, comes out of the bytes themselves, so that an input always does the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any
from zlib import crc32

import h11

from lb.config import ConfigError, Problem, loads
from lb.config.scenario import scenario_of
from lb.core import identity
from lb.core.failure import Failure
from lb.core.message import Limits, Request, Response
from lb.observe.access_log import AccessLog
from lb.wire.chunked import ChunkedError, ChunkedReader, chunk, last_chunk
from lb.wire.fields import request_rules, response_rules
from lb.wire.h1_client import ClientCodec
from tests.conformance.strict import parse_request
from tests.fuzz.further import further_targets
from tests.observe.made import EPOCH, made_exchange
from tests.wire.recording import (
    AT_ONCE,
    COMPLETE,
    LATER,
    NEVER,
    OURS,
    BackendConversation,
    ClientConversation,
    RequestHeard,
    ResponseHeard,
    Wire,
    cut,
)

Target = Callable[[bytes], None]

_LIMITS = (Limits(), Limits(), Limits(request_line=64, header_bytes=128, header_count=4, body=16))


def chance_of(data: bytes) -> Random:
    return Random(crc32(data))


def pieces_of(data: bytes, chance: Random) -> list[bytes]:
    """The data byte by byte, or cut at some places."""
    if len(data) < 512 and chance.random() < 0.2:
        return [data[at : at + 1] for at in range(len(data))]
    return cut(data, [chance.randrange(1 << 16) for _ in range(chance.randint(1, 8))])


# --- requests ---


def requests(data: bytes) -> None:
    """A client's connection: the same at any cut; and what goes on to a backend is what was understood."""
    chance = chance_of(data)
    limits, trusted = chance.choice(_LIMITS), chance.random() < 0.5
    answers = chance.choice((AT_ONCE, LATER))
    whole = ClientConversation(limits, trusted, answers).says(data)
    in_pieces = ClientConversation(limits, trusted, answers).says(*pieces_of(data, chance))
    for conversation in (whole, in_pieces):
        for heard in conversation.requests:
            if heard.ending != COMPLETE:  # some of the body may be told or not, and this mistake or that one
                heard.body, heard.ending = b"", heard.ending and "broken"
    assert in_pieces.requests == whole.requests, (in_pieces.requests, whole.requests)
    for conversation in (whole, in_pieces):
        if bool(in_pieces.refused) != bool(whole.refused) and not conversation.refused:
            conversation.says(b"\r\n\r\n")  # a head that is beyond help may be seen to be so before its end
    assert bool(in_pieces.refused) == bool(whole.refused), (in_pieces.refused, whole.refused)
    for heard, head in zip(whole.requests, whole.heads, strict=True):
        if heard.ending == COMPLETE:
            _goes_on(heard, head)
            _is_logged(head)


def _goes_on(heard: RequestHeard, head: Request) -> None:
    """Sends it to a backend: h11 and the strict parser of the conformance tests read it alike."""
    wire = Wire()
    codec = ClientCodec(wire, response_rules("X-Request-ID"))
    extra = OURS if head.host else OURS + b"\r\nHost: backend.test"
    if heard.trailers:
        codec.send_head(ResponseHeard(), head, extra, heard.body, False)
        codec.send_end(list(heard.trailers))
    else:
        codec.send_head(ResponseHeard(), head, extra, heard.body, True)
    strict, size = parse_request(wire.written)
    assert size == len(wire.written), f"something is left behind the request: {wire.written!r}"
    assert not strict.violations, (strict.violations, wire.written)
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(wire.written)
    said = peer.next_event()
    assert isinstance(said, h11.Request), (said, wire.written)
    assert (said.method, said.target) == (head.method, head.target)
    body = b""
    while isinstance(event := peer.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage), (event, wire.written)
    assert body == heard.body, (body, heard.body)
    assert not peer.trailing_data[0], f"a second request: {wire.written!r}"


def _is_logged(head: Request) -> None:
    """It makes one line of the access log, which is JSON."""
    lines: list[bytes] = []
    exchange = made_exchange(1, [])
    exchange.method, exchange.host, exchange.target = head.method, head.host, head.target
    log = AccessLog(lines.append, EPOCH)
    log.on_exchange(exchange)
    log.flush()
    [line] = b"".join(lines).splitlines()
    assert isinstance(json.loads(line), dict)


# --- responses ---


class _Relay(ResponseHeard):
    """What an attempt and an exchange do with a response: it goes on to the client as it comes."""

    began = False  # whether the head has gone on

    def start(self, client: ClientConversation) -> None:
        self.codec = client.codec

    def on_interim(self, response: Response) -> None:
        super().on_interim(response)
        self.codec.send_interim(response)

    def on_head(self, response: Response, data: bytes, end: bool) -> None:
        super().on_head(response, data, end)  # which tells of the data and of the end, too
        self.began = True
        self.codec.send_head(response, OURS, data, end)

    def on_data(self, data: bytes) -> None:
        super().on_data(data)
        if self.began:
            self.codec.send_data(data)

    def on_end(self, trailers: Sequence[bytes]) -> None:
        super().on_end(trailers)
        if self.began:
            self.codec.send_end(trailers)

    def on_error(self, failure: Failure) -> None:
        super().on_error(failure)
        self.codec.close()


class _Asking(BackendConversation):
    """A request whose response goes on to a client that h11 plays."""

    def __init__(self, method: bytes) -> None:
        self.client = ClientConversation(answers=NEVER)
        self.client.says(b"%b / HTTP/1.1\r\nHost: shop.test\r\n\r\n" % method)
        super().__init__(method)

    def ask(self, head: Request, data: bytes = b"", end: bool = True) -> ResponseHeard:
        self.heard = relay = _Relay()
        relay.start(self.client)
        self.codec.send_head(relay, head, OURS, data, end)
        return relay


def responses(data: bytes) -> None:
    """A backend's connection: the same at any cut; and what is cut short never looks whole to the client."""
    chance = chance_of(data)
    method, clean = chance.choice((b"GET", b"HEAD", b"POST")), chance.random() < 0.5
    whole = BackendConversation(method).says(data)
    in_pieces = BackendConversation(method).says(*pieces_of(data, chance))
    for one in (whole, in_pieces):
        one.closes(clean)
        assert one.heard.ending
    assert in_pieces.heard.ending == whole.heard.ending, (in_pieces.heard, whole.heard)
    if whole.heard.ending == COMPLETE:
        assert in_pieces.heard == whole.heard, (in_pieces.heard, whole.heard)
    _comes_back(method, pieces_of(data, chance), clean)


def _comes_back(method: bytes, pieces: list[bytes], clean: bool) -> None:
    asking = _Asking(method).says(*pieces).closes(clean)
    heard, codec, written = asking.heard, asking.client.codec, asking.client.wire.written
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"shop.test")]))
    peer.send(h11.EndOfMessage())
    if written:  # to h11, nothing at all means the end of the connection
        peer.receive_data(written)
    if heard.ending == COMPLETE and not codec.keep_alive:
        peer.receive_data(b"")
    status, body, ended, interim = b"", b"", False, 0
    while not ended:
        event = peer.next_event()
        if isinstance(event, h11.InformationalResponse):
            interim += 1
        elif isinstance(event, h11.Response):
            status = b"%d" % event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            ended = True
        else:
            break
    assert interim == len(heard.interim), written
    assert status == (heard.line.split(b" ")[1] if heard.line else b""), written
    assert ended == (heard.ending == COMPLETE), (heard, written)
    if ended:
        assert body == heard.body, (body, heard.body)


# --- the chunked coding ---


def chunked(data: bytes) -> None:
    """A body with its trailers: the same at any cut, and written anew it is read as it was."""
    chance = chance_of(data)
    whole = _decoded([data])
    assert _decoded(pieces_of(data, chance)) == whole
    if whole is None:
        return
    body, trailers, rest = whole
    coded = (chunk(body) if body else b"") + last_chunk(trailers)
    assert _decoded([coded]) == (body, trailers, b"")
    peer = h11.Connection(h11.SERVER)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    peer.receive_data(head + data[: len(data) - len(rest)])
    heard = b""
    try:
        while not isinstance(event := peer.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                heard += bytes(event.data)
            elif event is h11.NEED_DATA:
                raise AssertionError("h11 sees no end of what we take for whole")
    except h11.RemoteProtocolError:
        return  # it takes no spaces before an extension, and no more than 20 digits
    assert heard == body
    assert not peer.trailing_data[0]


def _decoded(pieces: list[bytes]) -> tuple[bytes, list[bytes], bytes] | None:
    """Content, trailers and what lies behind; None where it is broken, or has no end."""
    reader, body, rest = ChunkedReader(request_rules()), b"", b""
    try:
        for piece in pieces:
            if reader.done:
                rest += piece
            else:
                content, rest = reader.feed(piece)
                body += content
    except ChunkedError:
        return None
    return (body, reader.trailers, rest) if reader.done else None


# --- who the client is ---


_NETWORKS = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
# Both forms that it has had: networks alone, or with the ports and quotes that entries may have.
_TRUSTED: Any = identity.Proxies(_NETWORKS) if hasattr(identity, "Proxies") else _NETWORKS
_PLAIN: Callable[[str], str] = getattr(identity, "node_address", None) or (
    lambda entry: _plain(entry.strip())
)


def forwarded(data: bytes) -> None:
    """X-Forwarded-For: some address that stands there, or the peer's, and none to the left of a stranger."""
    client_address = identity.client_address
    found = client_address("10.0.0.1", data, _TRUSTED)
    entries = data.decode("latin-1").split(",")
    if found != "10.0.0.1":
        assert found in [_PLAIN(entry) for entry in entries]
    assert client_address("10.0.0.1", data + b", 192.0.2.7", _TRUSTED) == "192.0.2.7"
    assert client_address("10.0.0.1", data + b", 192.0.2.7, 10.1.1.1", _TRUSTED) == "192.0.2.7"


def _plain(entry: str) -> str:
    try:
        return str(ip_address(entry))
    except ValueError:
        return ""


# --- the configuration ---


def config(data: bytes) -> None:
    """A configuration, or problems with their place. Nothing else."""
    _loaded(data.decode("utf-8", "replace"), loads)


def scenario(data: bytes) -> None:
    """The same for the scenarios of the simulator."""
    _loaded(data.decode("utf-8", "replace"), scenario_of)


def _loaded(text: str, load: Callable[[str], object]) -> None:
    try:
        load(text)
    except ConfigError as error:
        check_problems(error.problems, text)


def check_problems(problems: Sequence[Problem], text: str) -> None:
    """There are some, in order, each within the text and with words."""
    lines = 1 + sum(text.count(end) for end in "\n\r\x85\u2028\u2029")
    assert problems
    assert list(problems) == sorted(problems, key=lambda problem: (problem.line, problem.column))
    for problem in problems:
        assert 1 <= problem.line <= lines
        assert problem.column >= 1
        assert problem.message


TARGETS: dict[str, Target] = {
    target.__name__: target for target in (requests, responses, chunked, forwarded, config, scenario)
}

TARGETS |= further_targets()
