"""Judges who share nothing with us: what h11, aiohttp's parser and Go's net/http make of a message.

Each says what it understood, or raises `Rejected`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import h11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParserPy, HttpResponseParserPy

from tests.conformance.strict import parse_response

# What frames a message is told by its body, and some judges take these away. Trailers are told apart.
FRAMING = {"content-length", "transfer-encoding", "host", "trailer", "connection"}
Values = dict[str, list[str]]


class Rejected(Exception):
    """The judge wouldn't have it."""


@dataclass
class Meaning:
    """A message as someone understood it; octets are characters of the same number."""

    start: tuple[str, ...]  # method and target, or the status
    host: str = ""
    fields: Values = field(default_factory=dict)
    body: str = ""
    trailers: Values | None = None  # None: this judge doesn't tell


def values(pairs: Iterable[tuple[bytes, bytes]]) -> Values:
    """Values by name, those of one name in their order."""
    found: Values = {}
    for name, value in pairs:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.strip(b" \t").decode("latin-1"))
    return found


def _without_framing(found: Values) -> Values:
    return {name: each for name, each in found.items() if name not in FRAMING}


class H11:
    """h11 by N. J. Smith: written from the grammar, and strict."""

    def request(self, raw: bytes) -> Meaning:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        return self._read(connection, raw)

    def response(self, raw: bytes, method: str) -> Meaning:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        return self._read(connection, raw)

    def _read(self, connection: h11.Connection, raw: bytes) -> Meaning:
        found, body = Meaning(()), b""
        try:
            connection.receive_data(raw)
            connection.receive_data(b"")
            while True:
                event = connection.next_event()
                if isinstance(event, h11.Request):
                    found.start = event.method.decode(), event.target.decode("latin-1")
                elif isinstance(event, h11.Response):
                    found.start = (str(event.status_code),)
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    found.body, found.trailers = body.decode("latin-1"), values(event.headers)
                    return found
                elif not isinstance(event, h11.InformationalResponse):
                    raise Rejected(str(event))
                if isinstance(event, h11.Request | h11.Response):
                    headers = values(event.headers)
                    found.host, found.fields = headers.get("host", [""])[0], _without_framing(headers)
        except h11.RemoteProtocolError as error:
            raise Rejected(str(error)) from error


class Aiohttp:
    """aiohttp's parser, the one in Python: the other one is llhttp, as ours is."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        self._loop.close()

    def request(self, raw: bytes) -> Meaning:
        parser = HttpRequestParserPy(
            BaseProtocol(self._loop), self._loop, 1 << 20, max_line_size=9000, auto_decompress=False
        )
        message, body = self._read(parser, raw)
        headers = values(message.raw_headers)
        return Meaning(
            (message.method, message.path), headers.get("host", [""])[0], _without_framing(headers), body
        )

    def response(self, raw: bytes, method: str) -> Meaning:
        parser = HttpResponseParserPy(
            BaseProtocol(self._loop),
            self._loop,
            1 << 20,
            method=method,
            response_with_body=method != "HEAD",
            read_until_eof=True,
            auto_decompress=False,
        )
        while raw.startswith(b"HTTP/1.1 1"):  # its client takes 1xx from the parser one by one
            raw = raw.partition(b"\r\n\r\n")[2]
        message, body = self._read(parser, raw)
        return Meaning((str(message.code),), "", _without_framing(values(message.raw_headers)), body)

    def _read(self, parser: HttpRequestParserPy | HttpResponseParserPy, raw: bytes):  # type: ignore[no-untyped-def]
        try:
            messages, _, rest = parser.feed_data(raw)
            parser.feed_eof()
            if len(messages) != 1 or rest:
                raise Rejected(f"{len(messages)} messages, and {rest!r} behind")
            message, payload = messages[0]
            body = self._loop.run_until_complete(payload.read())
        except Exception as error:  # a stream raises whatever it was ended with
            if isinstance(error, Rejected | HttpProcessingError) or type(error).__module__.startswith(
                "aiohttp"
            ):
                raise Rejected(repr(error)) from error
            raise
        return message, body.decode("latin-1")


class Go:
    """Go's net/http: a server that gets the request itself, or reads a response that is posted to it."""

    def __init__(self, go: str, directory: Path) -> None:
        program = directory / "judge"
        source = Path(__file__).parent / "judge"
        subprocess.run([go, "build", "-o", str(program), "."], cwd=source, check=True)
        self._process = subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(5)
        self._process.stdout.close()

    def request(self, raw: bytes) -> Meaning:
        found = self._ask(raw)
        if found is None:
            assert raw.startswith(b"OPTIONS * "), raw  # net/http answers these by itself
            return H11().request(raw)
        return self._meaning((found["Method"], found["Target"]), found)

    def response(self, raw: bytes, method: str) -> Meaning:
        head = f"POST /judge HTTP/1.1\r\nHost: a\r\nX-Method: {method}\r\nContent-Length: {len(raw)}\r\n\r\n"
        found = self._ask(head.encode() + raw)
        assert found is not None
        return self._meaning((str(found["Status"]),), found)

    def _meaning(self, start: tuple[str, ...], found: dict[str, object]) -> Meaning:
        if found["Error"]:
            raise Rejected(str(found["Error"]))

        def lower(named: object) -> Values:
            assert isinstance(named, dict)
            return {name.lower(): each for name, each in named.items() if each}

        return Meaning(
            start,
            str(found["Host"]),
            _without_framing(lower(found["Fields"])),
            str(found["Body"]),
            None if found["Trailers"] is None else lower(found["Trailers"]),
        )

    def _ask(self, raw: bytes) -> dict[str, object] | None:
        answer = b""
        with socket.create_connection(("127.0.0.1", self._port), 5) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(1 << 16):
                answer += more
        response = parse_response(answer, raw.startswith(b"HEAD "), "fin")
        if response.status != 200:
            raise Rejected(answer.decode("latin-1"))
        judged = response.get("x-judged")
        return None if judged is None else json.loads(b64decode(judged))  # type: ignore[no-any-return]
