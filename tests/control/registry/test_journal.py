"""The store in a file: what was acknowledged is there, whatever happens to the process or the disk."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lb.control.registry import journal
from lb.control.registry.journal import Damaged, FileStore, Taken, _read
from lb.control.registry.model import CRITICAL, PASSING, State
from lb.control.registry.store import Unavailable
from lb.control.registry.table import Table
from tests.control.registry.scene import checked, instance, opened

ROOT = Path(__file__).parents[3]
PASS = {"service:a": State(PASSING)}


async def read(path: Path) -> Table:
    """The table as the next process has it."""
    async with opened(FileStore(str(path))) as registry:
        return registry.table


def contents(table: Table) -> dict[str, tuple[object, object]]:
    return {name: (entry.instance, entry.states) for name, entry in table.entries.items()}


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "registry"
    async with opened(FileStore(str(path))) as registry:
        await registry.register(checked("a"), PASS)
        await registry.register(instance("b", tags=("é\n",)), {})
        await registry.register(instance("c"), {})
        await registry.set_maintenance("b", True, "disk")
        await registry.deregister("c")
        before = contents(registry.table)
    assert contents(await read(path)) == before
    assert path.stat().st_mode & 0o777 == 0o600


async def test_after_a_restart_everyone_has_a_whole_ttl(tmp_path: Path) -> None:
    path = tmp_path / "registry"
    async with opened(FileStore(str(path))) as registry:
        await registry.register(checked("a", 0.3), PASS)
    async with opened(FileStore(str(path))) as registry:
        assert registry.table.entries["a"].status == PASSING
        changed = asyncio.Event()
        registry.table.listen(lambda *_: changed.set())
        await asyncio.wait_for(changed.wait(), 10)
        assert registry.table.entries["a"].status == CRITICAL
    assert (await read(path)).entries["a"].status == CRITICAL


async def test_heartbeats_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "registry"
    async with opened(FileStore(str(path))) as registry:
        await registry.register(checked("a"), PASS)
        size = path.stat().st_size
        for number in range(100):
            await registry.report("service:a", State(PASSING, str(number)))
        assert path.stat().st_size == size


async def test_a_heartbeat_behind_its_own_end_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "registry"
    async with opened(FileStore(str(path))) as registry:
        await registry.register(checked("a"), PASS)
        await asyncio.gather(
            registry.report("service:a", State(CRITICAL)), registry.report("service:a", State(PASSING))
        )
        assert registry.table.entries["a"].status == PASSING
    assert (await read(path)).entries["a"].status == PASSING


@pytest.mark.parametrize("cut", [1, 5, 30])
async def test_a_torn_last_line_is_left_out(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "registry"
    async with opened(FileStore(str(path))) as registry:
        await registry.register(instance("a"), {})
        await registry.register(instance("b"), {})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    async with opened(FileStore(str(path))) as registry:
        assert list(registry.table.entries) == ["a"]
        await registry.register(instance("c"), {})
    assert list((await read(path)).entries) == ["a", "c"]


async def test_cut_off_anywhere_and_damaged_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a file that ends too early the last line goes; of one with another byte no more, or it is told."""
    path = tmp_path / "registry"
    sizes, tables = [0], [contents(Table())]
    async with opened(FileStore(str(path))) as registry:

        def written() -> None:
            sizes.append(path.stat().st_size)
            tables.append(
                {name: (each.instance, dict(each.states)) for name, each in registry.table.entries.items()}
            )

        for name in "abc":
            await registry.register(checked(name), {f"service:{name}": State(PASSING, "é\r\n")})
            written()
        await registry.report("service:b", State(CRITICAL, "x"))
        written()
        await registry.deregister("a")
        written()
    data = path.read_bytes()
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        lines = max(number for number, size in enumerate(sizes) if size <= cut)
        assert _read(path)[:2] == (tables[lines], sizes[lines])
    for place, byte in enumerate(data):
        for other in {byte ^ 1, 0, 10, 13, 32} - {byte}:
            path.write_bytes(data[:place] + bytes([other]) + data[place + 1 :])
            caplog.clear()
            try:
                found = _read(path)[0]
            except Damaged:
                continue
            assert (found, place >= sizes[-2]) == (tables[-2], True)
            assert "not written whole" in caplog.text


async def test_damage_in_the_midst_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "registry"
    async with opened(FileStore(str(path))) as registry:
        for name in "abc":
            await registry.register(instance(name), {})
    data = bytearray(path.read_bytes())
    data[data.index(b'"b"') + 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged, match=r"registry:2: this line is damaged"):
        await FileStore(str(path)).open(Table())
    assert path.read_bytes() == data


async def test_the_file_is_written_anew_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SPARE_LINES", 20)
    path = tmp_path / "registry"
    async with opened(FileStore(str(path))) as registry:
        for number in range(200):
            await registry.register(instance("a", port=number), {})
        await registry.register(instance("b"), {})
        before = contents(registry.table)
    assert len(path.read_bytes().splitlines()) < 60
    assert contents(await read(path)) == before


async def test_two_processes_cannot_share_it_but_one_can_follow_another(tmp_path: Path) -> None:
    path = str(tmp_path / "registry")
    async with opened(FileStore(path)) as first:
        await first.register(instance("a"), {})
        with pytest.raises(Taken, match="another balancer"):
            await FileStore(path).open(Table())
        async with opened(FileStore(path, waits=True)) as second:
            assert list(second.table.entries) == ["a"]
            waiting = asyncio.ensure_future(second.register(instance("c"), {}))
            await first.register(instance("b"), {})
            await first.close()
            await waiting
            assert list(second.table.entries) == ["a", "b", "c"]
    assert list((await read(Path(path))).entries) == ["a", "b", "c"]


async def test_a_full_disk_refuses_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lb.registry")
    path = tmp_path / "registry"
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with opened(FileStore(str(path))) as registry:
        await registry.register(instance("a"), {})
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, old[1]))
        try:
            for _ in range(3):
                with pytest.raises(Unavailable, match="can't be written"):
                    await registry.register(instance("b"), {})
            assert list(registry.table.entries) == ["a"]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        await registry.register(instance("c"), {})
    assert list((await read(path)).entries) == ["a", "c"]
    assert [record.getMessage().partition(str(path))[0] for record in caplog.records] == [
        "the registry can't be written to ",
        "the registry can be written to ",
    ]


PROGRAM = """
import asyncio, sys
from lb.control.registry.journal import FileStore
from lb.control.registry.registry import Registry
from tests.control.registry.scene import LoopClock, instance

async def main():
    registry = Registry(FileStore(sys.argv[1]), LoopClock())
    await registry.open()
    async def one(number):
        await registry.register(instance(str(number), port=number + 1), {})
        print(number, flush=True)
    for start in range(0, 1000, 50):
        await asyncio.gather(*(one(number) for number in range(start, start + 50)))

asyncio.run(main())
"""


def killed_after(path: Path, acknowledged: int) -> set[str]:
    """Who was told that it is registered, before the process was killed and in its last moment."""
    command = [sys.executable, "-c", PROGRAM, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(acknowledged)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
    return {line.strip() for line in told if line.endswith("\n")}


@pytest.mark.parametrize("acknowledged", [1, 137, 613])
async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, acknowledged: int) -> None:
    path = tmp_path / "registry"
    wanted = await asyncio.to_thread(killed_after, path, acknowledged)
    found = (await read(path)).entries
    assert len(wanted) >= acknowledged
    assert wanted <= set(found)
    assert all(entry.instance.port == int(name) + 1 for name, entry in found.items())


async def test_one_that_has_never_been_there_is_empty(tmp_path: Path) -> None:
    assert (await read(tmp_path / "registry")).entries == {}
    assert set(os.listdir(tmp_path)) == {"registry.lock", "registry"}
