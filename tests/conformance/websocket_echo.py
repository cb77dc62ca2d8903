"""A WebSocket server that says everything back, and always does the same.

Its judgement is that of the library `websockets`. But it gets frame by frame, however the network has cut or
joined them, so that a message is always answered before what stands behind it is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

LARGEST = 1 << 25  # bytes of a message
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class Cutter:
    """Cuts what comes between frames, and between a frame's head and its payload."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                yield piece
                continue
            self._head += data[at : at + 1]
            at += 1
            size = self._head_size()
            if size and len(self._head) == size:
                head, self._head = self._head, b""
                self._left = head[1] & 0x7F
                if self._left > 125:
                    self._left = int.from_bytes(head[2 : 4 if self._left == 126 else 10], "big")
                yield head

    def _head_size(self) -> int:
        if len(self._head) < 2:
            return 0
        masked, length = self._head[1] >> 7, self._head[1] & 0x7F
        return 2 + {126: 2, 127: 8}.get(length, 0) + 4 * masked


class Echo:
    """One connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.protocol = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()], max_size=LARGEST)
        self._writer = writer
        self._message: list[bytes] = []
        self._opcode = Opcode.CONT

    async def run(self, reader: asyncio.StreamReader) -> None:
        self.protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
        [request] = self.protocol.events_received()
        assert isinstance(request, Request)
        self.protocol.send_response(self.protocol.accept(request))
        self._say()
        cutter = Cutter()
        while data := await reader.read(1 << 18):
            for piece in cutter.pieces(data):
                if self.protocol.state is State.OPEN:  # else nobody listens any more
                    self.protocol.receive_data(piece)
                    self._answer()
            await self._writer.drain()

    def _answer(self) -> None:
        for event in self.protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode not in _DATA:
                continue
            if event.opcode is not Opcode.CONT:
                self._opcode, self._message = event.opcode, []
            self._message.append(bytes(event.data))
            if event.fin and self.protocol.state is State.OPEN:
                self._echo(b"".join(self._message))
        self._say()

    def _echo(self, message: bytes) -> None:
        if self._opcode is Opcode.BINARY:
            self.protocol.send_binary(message)
            return
        try:
            message.decode()
        except UnicodeDecodeError as error:
            self.protocol.fail(1007, f"{error.reason} at {error.start}")
        else:
            self.protocol.send_text(message)

    def _say(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self._writer.write(data)
            else:
                self._writer.write_eof()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """For asyncio.start_server."""
    with suppress(ConnectionError):
        await Echo(writer).run(reader)
    writer.transport.abort()
