"""One source being watched: what it does to the set, and how it is asked again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lb.discovery import watch as module
from lb.discovery.base import SourceError
from lb.discovery.watch import Beliefs, Watch
from tests.control.waiting import until
from tests.discovery.scripted import Scripted, specs, watch


@pytest.fixture
def source() -> Scripted:
    return Scripted()


@pytest_asyncio.fixture
async def watched(source: Scripted, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watch]:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.02)
    watched = watch(source)
    watched.start()
    yield watched
    await watched.close()


async def test_each_set_that_is_another_one_is_told(source: Scripted, watched: Watch) -> None:
    told = []
    watched.on_set = lambda: told.append(watched.specs)
    for each in (specs(1, 2), specs(1, 2), specs(2), specs(2, 3)):
        source.say(each)
    await until(lambda: len(told) == 3)
    assert told == [specs(1, 2), specs(2), specs(2, 3)]
    assert watched.state.updates == {"success": 4, "kept": 0, "failure": 0}
    assert watched.state.backends == 2
    assert abs(watched.state.last_success - time.time()) < 60


async def test_a_failure_keeps_the_last_set_and_asks_again(
    source: Scripted, watched: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source.say(specs(1, 2))
    for _ in range(3):
        source.say(SourceError("the server is down"))
    await until(lambda: source.watched == 4)
    assert watched.specs == specs(1, 2)
    assert watched.state.error == "the server is down"
    assert watched.state.updates["failure"] == 3
    source.say(specs(3))
    await until(lambda: watched.specs == specs(3))
    assert watched.state.error == ""
    lines = [record.message for record in caplog.records]
    assert lines == [  # once, though it failed three times
        "pool greeter: source scripted (a test): the server is down; its last 2 backends stay",
        "pool greeter: source scripted (a test) answers again",
    ]


async def test_an_end_and_a_slip_are_failures_too(
    source: Scripted, watched: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    source.say(specs(1))
    source.say(None)
    await until(lambda: watched.state.error == "it ended")
    source.say(KeyError("ports"))
    await until(lambda: watched.state.error == "KeyError: 'ports'")
    assert "Traceback" in caplog.text  # who reports it needs to know where
    source.say(specs(1, 2))
    await until(lambda: watched.specs == specs(1, 2))
    assert source.closed == 2


async def test_the_first_answer_or_failure_settles_it(source: Scripted, watched: Watch) -> None:
    assert not watched.settled.is_set()
    source.say(SourceError("not yet"))
    await asyncio.wait_for(watched.settled.wait(), 5)
    assert not watched.answered.is_set()
    assert not watched.state.known
    source.say(())
    await asyncio.wait_for(watched.answered.wait(), 5)
    assert watched.state.known


async def test_an_empty_answer_after_a_full_one_is_not_believed(source: Scripted, watched: Watch) -> None:
    source.say(())  # the first one is
    source.say(specs(1))
    source.say(())
    await until(lambda: watched.state.updates["kept"])
    assert watched.specs == specs(1)
    assert watched.state.updates["success"] == 2
    assert "on_empty" in watched.state.error
    source.say(specs(2))
    await until(lambda: watched.specs == specs(2))
    assert watched.state.error == ""


async def test_an_empty_answer_is_believed_where_that_is_configured(source: Scripted) -> None:
    watched = watch(source, beliefs=Beliefs(keep_empty=False))
    watched.start()
    source.say(specs(1))
    source.say(())
    await until(lambda: watched.state.updates["success"] == 2)
    assert (watched.specs, watched.state.error) == ((), "")
    await watched.close()


@pytest.mark.parametrize("trouble", [SourceError("down", after=60), ()])
async def test_a_set_is_given_up_when_it_is_stale(source: Scripted, trouble: SourceError) -> None:
    watched = watch(source, beliefs=Beliefs(max_stale=0.05))
    watched.start()
    source.say(specs(1))
    await until(lambda: watched.specs)
    await asyncio.sleep(0.1)  # it is no failure to have nothing new
    assert watched.specs == specs(1)
    source.say(trouble)
    await until(lambda: not watched.specs)
    assert watched.state.backends == 0
    assert watched.state.error
    await watched.close()


async def test_a_good_answer_in_time_keeps_it_from_getting_stale(source: Scripted) -> None:
    watched = watch(source, beliefs=Beliefs(max_stale=0.1))
    watched.start()
    source.say(specs(1))
    source.say(SourceError("for a moment", after=0.0))
    source.say(specs(1))
    await until(lambda: watched.state.updates["success"] == 2)
    await asyncio.sleep(0.2)
    assert watched.specs == specs(1)
    await watched.close()


async def test_waits_grow_and_differ(source: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", slept)
    watched = watch(source)
    watched.start()
    for _ in range(200):
        source.say(SourceError("down"))
    source.say(SourceError("come back in a minute", after=60))
    async with asyncio.timeout(5):
        while len(waits) < 201:
            await sleep(0)
    await watched.close()
    assert waits[-1] == 60
    for number, wait in enumerate(waits[:6]):
        assert 0 <= wait <= module.FIRST_WAIT * 2**number
    late = waits[10:200]
    assert max(late) <= module.LONGEST_WAIT
    assert 0.4 < sum(late) / len(late) / module.LONGEST_WAIT < 0.6  # even over the whole of it: full jitter


async def test_the_end_closes_the_source(source: Scripted) -> None:
    watched = watch(source)
    watched.start()
    source.say(specs(1))
    await until(lambda: watched.specs)
    await watched.close()
    assert source.closed == 1
    assert watched.specs == specs(1)
