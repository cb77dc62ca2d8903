"""Backends by a file: when it is read, and what happens to one that is wrong, gone, or just being written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lb.core.backend import BackendSpec
from lb.discovery import file as module
from lb.discovery.base import SourceError
from lb.discovery.file import FileSource


class Reader:
    """Backends of lines `NAME`, and how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, path: Path) -> Sequence[BackendSpec]:
        self.times += 1
        try:
            lines = path.read_text().splitlines()
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error
        if any(not line.isalnum() for line in lines):
            raise SourceError(f"{path}: wrong")
        return [BackendSpec(line, "h", number) for number, line in enumerate(lines)]


@contextlib.asynccontextmanager
async def watching(source: FileSource) -> AsyncIterator[Any]:
    async with contextlib.aclosing(source.watch()) as sets:

        async def following() -> list[str]:
            async with asyncio.timeout(10):
                return [each.id for each in await anext(sets)]

        yield following


def put(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


async def test_it_is_read_when_it_is_another_one(tmp_path: Path) -> None:
    path, reader = tmp_path / "file", Reader()
    put(path, "a\n")
    async with watching(FileSource(path, reader)) as following:
        assert await following() == ["a"]
        put(path, "a\nb\n")
        assert await following() == ["a", "b"]
        path.write_text("c\n")  # in place
        assert await following() == ["c"]
        os.utime(path)  # it might be another one
        assert await following() == ["c"]
    assert reader.times == 4


async def test_one_that_is_being_written_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.5)
    path = tmp_path / "file"
    put(path, "a\n")
    names = [f"b{number}" for number in range(100)]

    async def write() -> None:
        with path.open("w") as stream:
            for name in names:
                stream.write(f"{name}\n")
                stream.flush()
                await asyncio.sleep(0.02)

    async with watching(FileSource(path, Reader())) as following:
        assert await following() == ["a"]
        writing = asyncio.create_task(write())
        assert await following() == names
        await writing


async def test_one_that_is_wrong_is_told_and_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path, reader = tmp_path / "file", Reader()
    put(path, "a\n")
    source = FileSource(path, reader)
    async with watching(source) as following:
        await following()
        put(path, "?\n")
        with pytest.raises(SourceError, match="wrong") as caught:
            await following()
    assert caught.value.after == 0.0
    async with watching(source) as following:
        coming = asyncio.ensure_future(following())
        await asyncio.sleep(0.3)
        assert reader.times == 2, "it is the same wrong one"
        put(path, "b\n")
        assert await coming == ["b"]


async def test_one_that_is_wrong_is_read_again_after_a_while_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was wrong may not have been the file: no permission, no descriptor left."""
    monkeypatch.setattr(module, "SURE", 0.2)
    path, reader = tmp_path / "file", Reader()
    put(path, "?\n")
    source = FileSource(path, reader)
    for times in (1, 2):
        async with watching(source) as following:
            with pytest.raises(SourceError):
                await following()
        assert reader.times == times


async def test_one_that_is_gone_is_told_and_one_that_is_replaced_is_not(tmp_path: Path) -> None:
    path, reader = tmp_path / "file", Reader()
    put(path, "a\n")
    source = FileSource(path, reader)
    async with watching(source) as following:
        await following()
        path.unlink()
        with pytest.raises(SourceError, match="No such file"):
            await following()
    async with watching(source) as following:
        coming = asyncio.ensure_future(following())
        await asyncio.sleep(0.2)
        put(path, "b\n")
        assert await coming == ["b"]
        path.unlink()
        await asyncio.sleep(0.15)  # less than what counts as gone
        put(path, "c\n")
        assert await following() == ["c"]


async def test_links_are_followed_all_the_way(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "file").write_text(f"{number}\n")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "file").symlink_to("..data/file")
    async with watching(FileSource(tmp_path / "file", Reader())) as following:
        assert await following() == ["1"]
        (tmp_path / "..tmp").symlink_to("..2")
        os.replace(tmp_path / "..tmp", tmp_path / "..data")
        assert await following() == ["2"]


async def test_one_that_is_replaced_all_the_time_is_read_now_and_then(tmp_path: Path) -> None:
    """It is another one at each look, but whole each time."""
    path, reader = tmp_path / "file", Reader()
    put(path, "a\n")

    async def replace() -> None:
        while True:
            for name in "abcdefgh":
                put(path, f"{name}\n" * 2)
                await asyncio.sleep(0.007)

    async with watching(FileSource(path, reader)) as following:
        await following()
        replacing = asyncio.create_task(replace())
        for _ in range(3):
            assert len(set(await following())) == 1
        replacing.cancel()
        await asyncio.gather(replacing, return_exceptions=True)
        put(path, "z\n")
        while await following() != ["z"]:
            pass


async def test_one_that_is_written_all_the_time_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTLESS", 5)
    path, reader = tmp_path / "file", Reader()
    path.write_text("a\n")

    async def write() -> None:
        with path.open("w") as stream:
            while True:
                print("b", file=stream, flush=True)
                await asyncio.sleep(0.01)

    source = FileSource(path, reader)
    async with watching(source) as following:
        await following()
        writing = asyncio.create_task(write())
        with pytest.raises(SourceError, match="is being written all the time"):
            await following()
    assert reader.times == 1
    async with watching(source) as following:
        with pytest.raises(SourceError, match="is being written all the time"):
            await following()
    assert reader.times == 1
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    async with watching(source) as following:
        assert set(await following()) == {"b"}


async def test_one_that_costs_much_is_read_less_often(tmp_path: Path) -> None:
    """Whether it is good or wrong. The first time is for nothing."""
    path, reader, most = tmp_path / "file", Reader(), 0.02 / module.PART

    def slowly(path: Path) -> Sequence[BackendSpec]:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return reader(path)

    put(path, "a\n")
    source, began = FileSource(path, slowly), time.monotonic()
    async with watching(source) as following:
        await following()
        put(path, "b\n")
        await following()
        soon = time.monotonic() - began
        put(path, "?\n")
        with pytest.raises(SourceError):
            await following()
    put(path, "c\n")
    async with watching(source) as following:
        assert await following() == ["c"]
    assert time.monotonic() - began > 2 * most
    assert soon < most, "this took so long only since the machine is too slow for this test"


async def test_a_pipe_is_told(tmp_path: Path) -> None:
    """And not waited for. It may become a file."""
    path = tmp_path / "file"
    os.mkfifo(path)
    source = FileSource(path, Reader())
    async with watching(source) as following:
        with pytest.raises(SourceError, match="must be a file, not a pipe"):
            await following()
    put(path, "a\n")
    async with watching(source) as following:
        assert await following() == ["a"]
