"""Conversations of a WebSocket client in raw frames: right and wrong ones (RFC 6455, 7692).

In groups: framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing, limits, compression. What
the right answer is, is for the server to know: a balancer has to change nothing of it.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
DEFLATE = "permessage-deflate"


@dataclass(frozen=True)
class Case:
    """What a client sends, in so many writes, and which extensions it offers before."""

    name: str
    writes: tuple[bytes, ...]
    extensions: str = ""


def frame(
    opcode: int,
    payload: bytes = b"",
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x37\xfa\x21\x3d",
) -> bytes:
    """A frame as a client sends it; without a mask as it must not."""
    first, bit = (fin << 7) | (rsv << 4) | opcode, 0x80 if mask is not None else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, bit | len(payload))
    elif len(payload) < 1 << 16:
        head = struct.pack("!BBH", first, bit | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, bit | 127, len(payload))
    if mask is None:
        return head + payload
    keys = (mask * (len(payload) // 4 + 1))[: len(payload)]
    size = len(payload)
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")
    return head + mask + masked


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def chopped(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[at : at + size] for at in range(0, len(data), size))


def fragments(opcode: int, payload: bytes, size: int, rsv: int = 0) -> bytes:
    pieces = chopped(payload, size) or (b"",)
    last = len(pieces) - 1
    return b"".join(
        frame(opcode if not number else CONTINUATION, piece, number == last, 0 if number else rsv)
        for number, piece in enumerate(pieces)
    )


def cases() -> Iterator[Case]:
    for group in (
        _framing,
        _pings,
        _reserved,
        _opcodes,
        _fragmentation,
        _utf8,
        _closing,
        _limits,
        _compression,
    ):
        for number, (writes, *extensions) in enumerate(group(), 1):
            yield Case(f"{group.__name__[1:]}-{number}", writes, *extensions)


Said = tuple[tuple[bytes, ...]] | tuple[tuple[bytes, ...], str]


def _framing() -> Iterator[Said]:
    for opcode, unit in ((TEXT, b"*"), (BINARY, b"\xfe")):
        for size in (0, 125, 126, 127, 128, 65535, 65536):
            yield ((frame(opcode, unit * size), close()),)
        for chop in (1, 997):
            yield ((*chopped(frame(opcode, unit * (65536 if chop > 1 else 300)), chop), close()),)
    yield ((frame(TEXT, b"without a mask", mask=None),),)
    yield ((frame(TEXT, b"a mask of zeros", mask=bytes(4)), close()),)
    yield ((b"\x81\xfe\x00\x05\x00\x00\x00\x00hello", close()),)  # a length in more bytes than it needs
    yield ((b"\x81\xff" + struct.pack("!Q", 5) + bytes(4) + b"hello", close()),)
    yield ((b"\x81\xff" + struct.pack("!Q", 1 << 63) + bytes(4) + b"hello",),)
    yield ((b"\x81\xff" + struct.pack("!Q", 1 << 40) + bytes(4) + b"hello",),)


def _pings() -> Iterator[Said]:
    for payload in (b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125, b"\xfe" * 126):
        yield ((frame(PING, payload), close()),)
    yield ((*chopped(frame(PING, b"\xfe" * 125), 1), close()),)
    yield ((frame(PONG), close()),)
    yield ((frame(PONG, b"nobody asked"), close()),)
    yield ((frame(PONG, b"nobody asked"), frame(PING, b"I do"), close()),)
    many = b"".join(frame(PING, b"payload-%d" % number) for number in range(10))
    yield ((many, close()),)
    yield ((*chopped(many, 1), close()),)


def _reserved() -> Iterator[Said]:
    hello = frame(TEXT, b"Hello, world!")
    for rsv in range(1, 8):
        bad = frame(TEXT, b"Hello, world!", rsv=rsv)
        yield ((bad,),)
        yield ((hello, bad, frame(PING)),)
        yield ((*chopped(hello + bad + frame(PING), 1),),)
        yield ((frame(BINARY, b"\x00\xff\xfe\xfd", rsv=rsv),),)
        yield ((frame(PING, b"Hello", rsv=rsv),),)
        yield ((frame(CLOSE, rsv=rsv),),)


def _opcodes() -> Iterator[Said]:
    hello = frame(TEXT, b"Hello, world!")
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield ((frame(opcode),),)
        yield ((frame(opcode, b"reserved opcode payload"),),)
        yield ((hello, frame(opcode), frame(PING)),)
        yield ((*chopped(hello + frame(opcode, b"reserved") + frame(PING), 1),),)


def _fragmentation() -> Iterator[Said]:
    one, two = frame(TEXT, b"fragment1", fin=False), frame(CONTINUATION, b"fragment2")
    lone, lone_open = frame(CONTINUATION, b"non-continuation"), frame(CONTINUATION, b"non-cont", fin=False)
    ping, hello = frame(PING, b"ping payload"), frame(TEXT, b"Hello, world!")
    middle = frame(CONTINUATION, b"middle", fin=False)
    conversations = [
        (frame(PING, b"fragment1", fin=False), frame(CONTINUATION, b"fragment2")),
        (frame(PONG, b"fragment1", fin=False), frame(CONTINUATION, b"fragment2")),
        (frame(CLOSE, b"\x03\xe8", fin=False),),
        (one, two),
        (one, ping, two),
        (one, ping, middle, ping, two),
        (lone, hello),
        (lone_open, hello),
        (one, two, lone, hello),
        (one, two, lone_open, hello),
        (one, hello),
        (one, frame(BINARY, b"other")),
        (one, middle, hello),
        (frame(TEXT, fin=False), frame(CONTINUATION, fin=False), frame(CONTINUATION)),
        (frame(TEXT, fin=False), frame(CONTINUATION, b"middle", fin=False), frame(CONTINUATION)),
        (one, middle, middle, two, ping, one, two),
        (one, close()),
    ]
    for conversation in conversations:
        yield ((*conversation, close()),)
        yield ((b"".join(conversation) + close(),),)
        yield ((*chopped(b"".join(conversation), 1), close()),)


_GOOD = [
    "κόσμε".encode(),
    "Hello-µ@ßöäüàá-UTF-8!!".encode(),
    b"\x00",
    b"\x7f",
    *(chr(point).encode() for point in (0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFD, 0xFFFE, 0xFFFF)),
    *(chr(point).encode() for point in (0x10000, 0x1FFFE, 0x1FFFF, 0x8FFFF, 0x10FFFE, 0x10FFFF)),
]
_BAD = [
    b"\x80", b"\xbf", b"\x80\xbf\x80\xbf", b"\xc0 \xc1 ", b"\xe0 \xef ", b"\xf0 \xf4 ", b"\xf8 \xfb ",
    b"\xfc ", b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xdf", b"\xef\xbf",
    b"\xf7\xbf\xbf", b"\xfe", b"\xff", b"\xfe\xfe\xff\xff",
    b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf",
    b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80",
    b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80", b"\xed\xaf\xbf\xed\xbf\xbf",
    b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited",
]  # fmt: skip


def _utf8() -> Iterator[Said]:
    for text in (*_GOOD, *_BAD):
        yield ((frame(TEXT, text), close()),)
        yield ((frame(TEXT, b"before " + text + b" behind"), close()),)
        yield ((fragments(TEXT, text, 1), close()),)
        yield ((*chopped(frame(TEXT, text), 1), close()),)
    yield ((frame(BINARY, b"".join(_BAD)), close()),)


def _closing() -> Iterator[Said]:
    hello, ping = frame(TEXT, b"Hello World!"), frame(PING, b"ping")
    yield ((hello, close()),)
    yield ((close(), close()),)
    yield ((close(), ping),)
    yield ((close(), hello),)
    yield ((frame(TEXT, b"fragment1", fin=False), close(), frame(CONTINUATION, b"fragment2")),)
    yield ((frame(TEXT, b"A" * 262_144), hello, close(), ping),)
    yield ((close(None),),)
    yield ((frame(CLOSE, b"\x03"),),)
    for reason in (b"", b"Hello World!", b"*" * 123, b"*" * 124, _BAD[-1], "ü€😀".encode()):
        yield ((close(1000, reason),),)
    for code in (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999):
        yield ((close(code),),)
        yield ((close(code, b"because"),),)
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        yield ((close(code),),)
        yield ((close(code, b"because"),),)
    yield ((*chopped(hello + close(1000, b"bye"), 1),),)


def _limits() -> Iterator[Said]:
    for opcode, unit in ((TEXT, b"*"), (BINARY, b"\xfe")):
        for size in (1 << 16, 1 << 18, 1 << 20, 1 << 22):
            yield ((frame(opcode, unit * size), close()),)
        for piece in (1 << 8, 1 << 12, 1 << 16, 1 << 20):
            yield ((fragments(opcode, unit * (1 << 20), piece), close()),)
        for chop in (1 << 10, 1 << 12, 1 << 14):
            yield ((*chopped(frame(opcode, unit * (1 << 20)), chop), close()),)
        for size in (0, 16, 64, 256, 1024):
            yield ((b"".join(frame(opcode, unit * size) for _ in range(200)), close()),)
    yield ((frame(BINARY, bytes(1 << 24)), close()),)
    yield ((fragments(TEXT, b"*" * (1 << 24), 1 << 18), close()),)


def _compression() -> Iterator[Said]:
    chance = random.Random(1)
    words = [b"alpha", b"beta", b"gamma", "ü€".encode()]
    offers = ["", "client_no_context_takeover", "server_no_context_takeover", "client_max_window_bits=9"]
    offers += ["server_max_window_bits=9", "server_no_context_takeover; client_no_context_takeover"]
    for offer in offers:
        offered = f"{DEFLATE}; {offer}" if offer else DEFLATE
        for size in (16, 64, 1024, 8192, 65536):
            deflater = zlib.compressobj(wbits=-9 if "bits=9" in offer else -15)
            writes = []
            for _ in range(20):
                if "client_no" in offer:
                    deflater = zlib.compressobj(wbits=-15)
                message = b" ".join(chance.choices(words, k=size // 5))
                packed = deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH)
                writes.append(fragments(TEXT, packed[:-4], 500 if size == 8192 else 1 << 20, rsv=4))
            yield (*writes, frame(TEXT, b"plain"), close()), offered
    yield (frame(TEXT, b"this is no deflate stream", rsv=4),), DEFLATE
    yield (frame(PING, b"a ping can't be compressed", rsv=4),), DEFLATE
    yield (frame(TEXT, b"a", fin=False, rsv=4), frame(CONTINUATION, b"b", rsv=4)), DEFLATE
    bomb = zlib.compressobj(9, wbits=-15)
    packed = bomb.compress(bytes(1 << 26)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    yield (frame(BINARY, packed[:-4], rsv=4), close()), DEFLATE
    yield (frame(TEXT, b"nobody offered it", rsv=4), close()), ""
