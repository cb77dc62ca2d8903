"""Every conversation of websocket_cases.py, with the server itself and through the balancer: to the last byte
the same comes back, and the connection ends alike."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

import pytest
import pytest_asyncio

from tests.conformance.websocket_cases import Case, cases
from tests.conformance.websocket_echo import echo
from tests.e2e.conftest import scene, stage
from tests.e2e.scene import Scene
from tests.e2e.wire import head

__all__ = ["scene", "stage"]

PATIENCE = 30.0
AT_ONCE = 8
GROUPS = [
    pytest.param(tuple(group), id=name)
    for name, group in groupby(cases(), lambda case: case.name.partition("-")[0])
]


@dataclass(frozen=True)
class Verdict:
    """What came back: the status of the handshake and what was agreed on, all frames, the end."""

    status: str
    extensions: str
    frames: bytes
    ended: bool

    @property
    def code(self) -> int:
        """Of the close frame that the server sent; 0 if it sent none. It is the last one."""
        code = 0
        for opcode, payload in frames_of(self.frames):
            if opcode == 8:
                code = int.from_bytes(payload[:2], "big") if payload else 1005
        return code


def frames_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of each frame that a server has sent."""
    at = 0
    while at < len(data):
        size, start = data[at + 1] & 0x7F, at + 2
        if size > 125:
            start = at + (4 if size == 126 else 10)
            size = int.from_bytes(data[at + 2 : start], "big")
        yield data[at] & 0x0F, data[start : start + size]
        at = start + size


async def verdict(port: int, case: Case) -> Verdict:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE):
            offer = [f"Sec-WebSocket-Extensions: {case.extensions}"] if case.extensions else []
            writer.write(
                head(
                    "GET /echo HTTP/1.1",
                    "Host: a.example",
                    "Connection: Upgrade",
                    "Upgrade: websocket",
                    "Sec-WebSocket-Version: 13",
                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                    *offer,
                )
            )
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            agreed = [line for line in answer if line.lower().startswith("sec-websocket-extensions")]
            sending = asyncio.create_task(_send(writer, case.writes))
            frames, ended = b"", False
            with suppress(ConnectionError):
                while more := await reader.read(1 << 18):
                    frames += more
            ended = True
            await sending
    finally:
        writer.transport.abort()
    return Verdict(answer[0].split()[1], "".join(agreed), frames, ended)


async def _send(writer: asyncio.StreamWriter, writes: Sequence[bytes]) -> None:
    with suppress(ConnectionError):  # the server may have had enough
        for piece in writes:
            writer.write(piece)
            await writer.drain()


@pytest_asyncio.fixture
async def ports(scene: Scene) -> AsyncIterator[tuple[int, int]]:
    """Of the server itself, and of the balancer in front of it."""
    backend = scene.backend
    await backend.close()
    server = await asyncio.start_server(echo, sock=backend.listening.dup())
    async with server:
        yield backend.listening.getsockname()[1], scene.balancer.port


@pytest.mark.parametrize("group", GROUPS)
async def test_the_same_comes_back(ports: tuple[int, int], group: tuple[Case, ...]) -> None:
    direct, through = ports
    gate = asyncio.Semaphore(AT_ONCE)

    async def both(case: Case) -> tuple[Case, Verdict, Verdict]:
        async with gate:
            return case, await verdict(direct, case), await verdict(through, case)

    found = await asyncio.gather(*map(both, group))
    assert len(found) == len(group) > 10
    for case, wanted, seen in found:
        assert (seen.status, seen.extensions) == (wanted.status, wanted.extensions), case.name
        assert wanted.status == "101"
        assert wanted.ended, f"{case.name}: the server itself never ends it"
        assert seen.code == wanted.code, case.name
        assert seen.frames == wanted.frames, (case.name, len(seen.frames), len(wanted.frames))
        assert seen == wanted


async def test_the_server_tells_right_from_wrong(ports: tuple[int, int]) -> None:
    """Else the test above would say nothing."""
    codes: Counter[int] = Counter()
    for case in (case for param in GROUPS for case in param.values[0] if len(case.writes) < 4):
        if sum(map(len, case.writes)) < 1000:
            codes[(await verdict(ports[0], case)).code] += 1
    assert {1000, 1002, 1007, 1009, 4999} <= codes.keys(), codes
    assert codes[1000] > 30
    assert codes[1002] > 30
    assert codes[1007] > 30
