"""Messages between the supervisor and a worker, over a pair of connected sockets.

A frame is its length in four bytes, and JSON: `[number, kind, fields]`. What expects no answer has number 0;
a question has a number of its own, and its answer has the same one, negative. JSON and not pickle: workers
read what anybody sends them, and who would get one under control must not run code in the supervisor, too.

Messages arrive in the order in which they were said, and an answer comes after all that was said before it.
Where the other side doesn't keep up, `keeps_up` says so: what can wait should, and what can't is held, up to
a bound. Past it the other side is taken for dead.

Descriptors (sockets, shared memory) go a way of their own beside it, since an event loop's transport would
drop them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields
from struct import Struct
from typing import Any, cast

from lb.control.messages import KINDS, Message, Refused

log = logging.getLogger("lb.workers")

FRAME = 64 * 1024 * 1024  # bytes at most; 100,000 backends are some 20 MB
WAITING = 4 * FRAME  # bytes that may wait for the other side to read them

_LENGTH = Struct("!I")
_NAMES = {kind: [each.name for each in fields(kind)] for kind in KINDS.values()}

Answer = Message | Awaitable[Message]


class ChannelClosed(ConnectionError):
    """The other side is gone, or this one has closed the channel."""


class AskRefused(Exception):
    """The other side couldn't do what it was asked for. The text is its reason."""


def encode(number: int, message: Message) -> bytes:
    """A frame."""
    kind = type(message)
    body = {name: getattr(message, name) for name in _NAMES[kind]}
    text = json.dumps([number, kind.__name__, body], separators=(",", ":")).encode()
    if len(text) > FRAME:
        raise ValueError(f"a message of {len(text)} bytes is too long")
    return _LENGTH.pack(len(text)) + text


def decode(text: bytes) -> tuple[int, Message]:
    """What a frame says. Raises ValueError, TypeError or KeyError for what is none of ours."""
    number, kind, body = json.loads(text)
    return number, KINDS[kind](**body)


class Channel(asyncio.Protocol):
    """One end. `on_message` is told what needs no answer, `on_ask` gives answers, now or later."""

    def __init__(self) -> None:
        self.on_message: Callable[[Message], object] = lambda message: None
        self.on_ask: Callable[[Message], Answer] = lambda message: Refused("nobody is there to answer")
        self.on_lost: Callable[[], object] = lambda: None
        self.keeps_up = True
        self.lost = False
        self._ended = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._number = 0
        self._asked: dict[int, asyncio.Future[Message]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    @classmethod
    async def over(cls, end: socket.socket, **hooks: Callable[..., Any]) -> Channel:
        """A channel over one of a pair of sockets, which it takes over."""
        channel = cls()
        for name, hook in hooks.items():
            setattr(channel, name, hook)
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=end)
        return channel

    # --- saying ---

    def tell(self, message: Message) -> None:
        """Says something that needs no answer. Nothing happens where nobody is there to hear it."""
        self._send(0, message)

    async def ask(self, message: Message, timeout: float | None = None) -> Message:
        """The answer to a question. Raises ChannelClosed, AskRefused, or TimeoutError after these seconds."""
        if self.lost:
            raise ChannelClosed("the channel is closed")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._send(number, message)
            async with asyncio.timeout(timeout):
                found = await answer
        finally:
            self._asked.pop(number, None)
        if isinstance(found, Refused):
            raise AskRefused(found.reason)
        return found

    def _send(self, number: int, message: Message) -> None:
        transport = self._transport
        if self.lost or transport is None:
            return
        transport.write(encode(number, message))
        if transport.get_write_buffer_size() > WAITING:
            log.error("a process doesn't read what it is told, and is given up")
            transport.abort()

    def close(self) -> None:
        """Says what is still to be said, and no more."""
        if self._transport is not None:
            self._transport.close()

    async def end(self, timeout: float = 1.0) -> None:
        """Closes it, and waits until all is said, or raises TimeoutError after so many seconds."""
        self.close()
        async with asyncio.timeout(timeout):
            await self._ended.wait()

    # --- being told ---

    async def heard_all(self, timeout: float) -> None:
        """Waits until the other side has closed, and all that it has said is heard. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            await self._ended.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self.keeps_up = False

    def resume_writing(self) -> None:
        self.keeps_up = True

    def data_received(self, data: bytes) -> None:
        self._received += data
        start = 0
        while len(self._received) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received, start)
            end = start + _LENGTH.size + length
            if length > FRAME:
                self._give_up(f"a message of {length} bytes")
                return
            if len(self._received) < end:
                break
            frame = bytes(memoryview(self._received)[start + _LENGTH.size : end])
            start = end
            try:
                number, message = decode(frame)
            except (ValueError, TypeError, KeyError) as error:
                self._give_up(f"{type(error).__name__}: {error}")
                return
            self._on_frame(number, message)
        del self._received[:start]

    def _give_up(self, why: str) -> None:
        log.error("what a process said can't be understood, and it is given up: %s", why)
        self._received.clear()
        if self._transport is not None:
            self._transport.abort()

    def _on_frame(self, number: int, message: Message) -> None:
        if number < 0:
            waiting = self._asked.get(-number)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        elif not number:
            try:
                self.on_message(message)
            except Exception:  # what one message brings about must not end all that follow
                log.exception("%s went wrong", type(message).__name__)
        else:
            self._answer(number, message)

    def _answer(self, number: int, message: Message) -> None:
        try:
            answer = self.on_ask(message)
        except Exception as error:
            log.exception("%s went wrong", type(message).__name__)
            answer = Refused(f"{type(error).__name__}: {error}")
        if isinstance(answer, Message):
            self._send(-number, answer)
            return
        task = asyncio.ensure_future(self._answer_later(number, message, answer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer_later(self, number: int, message: Message, coming: Awaitable[Message]) -> None:
        try:
            answer = await coming
        except Exception as error:
            log.exception("%s went wrong", type(message).__name__)
            answer = Refused(f"{type(error).__name__}: {error}")
        self._send(-number, answer)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._ended.set()
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(ChannelClosed("the other side is gone"))
        self.on_lost()


# --- descriptors ---

AT_ONCE = 250  # descriptors in a message; Linux takes 253


def hand_over(way: socket.socket, names: Sequence[str], descriptors: Sequence[int]) -> None:
    """Gives another process these descriptors, under these names. They stay open here.

    The message that they belong to is to be said afterwards, so that who hears it finds them there. Raises
    OSError where the other side is gone.
    """
    for first in range(0, max(1, len(names)), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        more = first + AT_ONCE < len(names)
        text = json.dumps([more, *names[part]]).encode()
        socket.send_fds(way, [text], descriptors[part])


def take_over(way: socket.socket) -> dict[str, int]:
    """What has been handed over by one call of `hand_over`, not inherited by programs that we start."""
    found: dict[str, int] = {}
    more = True
    while more:
        text, descriptors, _, _ = socket.recv_fds(way, 1024 * 1024, AT_ONCE)
        if not text:
            raise ChannelClosed("the other side is gone")
        more, *names = json.loads(text)
        for each in descriptors:
            os.set_inheritable(each, False)  # recv_fds of Python 3.11 heeds no flag that would do it
        found.update(zip(names, descriptors, strict=True))
    return found


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets for a channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def pair_for_descriptors() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets for descriptors: each message of its own, as it was sent."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
