"""The supervisor with real processes: a tiny program that says who it is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from errno import ECONNREFUSED
from pathlib import Path

import pytest

from lb.control.messages import Begin, Collect, Configure, Counts, Find, Found, Message
from lb.control.ports import Port
from lb.control.shared_memory import SharedTable
from lb.control.supervisor import Supervisor, WorkerFailed
from lb.control.workers import SIGNALS, Worker
from tests.control.seats import bound
from tests.control.waiting import until

ROOT = Path(__file__).parents[2]


class Watching:
    """Greets workers, and remembers what they said and who has gone."""

    def __init__(self) -> None:
        self.config = "first"
        self.counted: Counter[int] = Counter()  # by process
        self.dead: list[int] = []

    def greeting(self) -> Iterator[Message]:
        yield Configure("lb.yaml", self.config)

    def heard(self, worker: Worker, message: Message) -> None:
        assert isinstance(message, Counts)
        assert worker.pid not in self.dead
        for _, fresh in message.listeners:
            self.counted[worker.pid] += fresh["requests"][0][1]

    def gone(self, worker: Worker) -> None:
        self.dead.append(worker.pid)


class House:
    """A supervisor with its workers and an address."""

    def __init__(self, count: int, how: str) -> None:
        self.lead = Watching()
        self.readers: dict[asyncio.StreamWriter, asyncio.StreamReader] = {}  # of clients
        self.shared = SharedTable.make(count + 1)
        self.port: Port = bound(seats=count)
        self.supervisor = Supervisor(command(how), count, self.shared, [self.port], self.lead)

    @property
    def processes(self) -> dict[int, int]:
        """By seat."""
        return {worker.seat: worker.pid for worker in self.supervisor.workers}

    def in_flight(self) -> int:
        return self.shared.table.total(0)

    async def connect(self) -> tuple[int, asyncio.StreamWriter]:
        """A client, and which process serves it."""
        host, port = self.port.name.split(":")
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port)
            self.readers[writer] = reader
            return int(await reader.readline()), writer

    async def configs(self) -> list[str]:
        """By what each worker goes."""
        answers = await self.supervisor.ask(Find("whatever"), 5)
        return [each.records[0][1]["config"] for each in answers if isinstance(each, Found)]

    async def spread(self, count: int) -> Counter[int]:
        """How many of so many short connections each process serves."""
        found: Counter[int] = Counter()
        for _ in range(count):
            process, writer = await self.connect()
            found[process] += 1
            writer.close()
        return found


def command(how: str) -> list[str]:
    return [sys.executable, "-m", "tests.control.worker_program", how]


@asynccontextmanager
async def house(count: int = 2, how: str = "as ever") -> AsyncIterator[House]:
    made = House(count, how)
    try:
        await made.supervisor.start()
        yield made
    finally:
        await made.supervisor.close()
        for process in made.lead.dead:
            assert not Path(f"/proc/{process}").exists()
        assert not made.in_flight()
        made.shared.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_they_share_the_port_and_know_what_there_is_to_know() -> None:
    before = descriptors()
    async with house() as all_:
        assert sorted(all_.processes) == [0, 1]
        spread = await all_.spread(40)
        assert set(spread) == set(all_.processes.values())
        answers = await all_.supervisor.ask(Find("whatever"), 5)
        found = [each.records[0][1] for each in answers if isinstance(each, Found)]
        assert {each["process"] for each in found} == set(all_.processes.values())
        assert {each["config"] for each in found} == {"first"}
    assert descriptors() == before


async def test_what_is_told_reaches_all() -> None:
    async with house() as all_:
        all_.supervisor.tell(Configure("lb.yaml", "second"))
        await all_.supervisor.ask(Begin(), 5)
        assert await all_.configs() == ["second", "second"]


async def test_counts_are_there_as_soon_as_they_are_asked_for() -> None:
    async with house() as all_:
        spread = await all_.spread(20)
        await all_.supervisor.ask(Collect(), 5)
        assert all_.lead.counted == spread


class TestDeath:
    async def test_another_one_comes_within_a_second_and_nobody_waits_that_long(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with house() as all_:
            seats = all_.processes
            os.kill(seats[0], signal.SIGKILL)
            killed = time.monotonic()
            await until(lambda: seats[0] in all_.lead.dead)
            slowest = 0.0
            while len(all_.processes) < 2:
                began = time.monotonic()
                process, writer = await all_.connect()
                writer.close()
                slowest = max(slowest, time.monotonic() - began)
                assert process != seats[0]
            back = time.monotonic() - killed
            assert set(await all_.spread(40)) == {seats[1], all_.processes[0]}
            assert await self.lent(all_) == 1
        assert back < 5  # a machine that has nothing else to do: 0.2 s
        assert slowest < back
        messages = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
        assert messages == [
            f"worker 0 (process {seats[0]}) was killed by SIGKILL; another one is started at once"
        ]

    @staticmethod
    async def lent(all_: House) -> int:
        """For how many seats the worker that accepts for most does."""
        answers = await all_.supervisor.ask(Find("whatever"), 5)
        return max(each.held for each in answers if isinstance(each, Found))

    async def test_what_it_had_in_flight_is_cleared_and_what_it_counted_kept(self) -> None:
        async with house() as all_:
            clients = [await all_.connect() for _ in range(20)]
            assert all_.in_flight() == 20
            await all_.supervisor.ask(Collect(), 5)
            victim = all_.processes[0]
            served = Counter(process for process, _ in clients)
            os.kill(victim, signal.SIGKILL)
            await until(lambda: victim in all_.lead.dead)
            assert all_.in_flight() == 20 - served[victim]
            assert all_.lead.counted == served
            for _, writer in clients:
                writer.close()
            await until(lambda: not all_.in_flight())

    async def test_only_its_own_connections_are_lost(self) -> None:
        async with house() as all_:
            victim = all_.processes[1]
            clients = [await all_.connect() for _ in range(20)]
            os.kill(victim, signal.SIGKILL)
            await until(lambda: victim in all_.lead.dead)
            await asyncio.sleep(0.1)
            for process, writer in clients:
                assert all_.readers[writer].at_eof() is (process == victim)
                writer.close()

    async def test_where_it_dies_again_there_is_a_pause(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lb.control.workers.BACK_OFF", (0.05, 0.1))
        async with house(1) as all_:
            for _ in range(4):
                [process] = all_.processes.values()
                os.kill(process, signal.SIGKILL)
                await until(lambda process=process: process in all_.lead.dead)  # type: ignore[misc]
                await until(lambda: len(all_.processes) == 1)
        ends = [each.getMessage().rpartition("started ")[2] for each in caplog.records if each.levelno >= 40]
        assert ends == ["at once", "in 0.05 s", "in 0.1 s", "in 0.1 s"]

    async def test_all_of_them_at_once(self) -> None:
        async with house() as all_:
            for process in all_.processes.values():
                os.kill(process, signal.SIGKILL)
            await until(lambda: len(all_.lead.dead) == 2)
            await until(lambda: len(all_.processes) == 2)
            assert len(await all_.spread(40)) == 2

    async def test_one_whose_successor_can_not_begin_is_tried_again(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lb.control.workers.BACK_OFF", (0.05, 0.1))
        async with house() as all_:
            seats = all_.processes
            all_.supervisor.command = command("refuses")
            os.kill(seats[0], signal.SIGKILL)
            await until(lambda: "the roof is leaking; the next one is started in 0.1 s" in caplog.text)
            assert set(await all_.spread(10)) == {seats[1]}
            all_.supervisor.command = command("as ever")
            await until(lambda: len(all_.processes) == 2)


class TestTheStart:
    @pytest.mark.parametrize(
        ("how", "reason"), [("refuses", "the roof is leaking"), ("dies", "it ended with 3")]
    )
    async def test_a_worker_that_can_not_begin_is_the_end_of_all(self, how: str, reason: str) -> None:
        before = descriptors()
        with pytest.raises(WorkerFailed, match=reason):
            async with house(how=how):
                pass
        assert descriptors() == before

    async def test_so_is_a_program_that_is_not_there(self) -> None:
        before = descriptors()
        made = House(2, "as ever")
        made.supervisor.command = ["/no/such/program"]
        with pytest.raises(FileNotFoundError):
            await made.supervisor.start()
        made.shared.close()
        assert descriptors() == before

    async def test_so_is_one_that_takes_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lb.control.supervisor.START", 1.0)
        with pytest.raises(WorkerFailed, match="not ready within 1 s"):
            async with house(how="hangs"):
                pass


class TestTheEnd:
    async def test_what_is_under_way_is_ended_and_the_last_counts_are_heard(self) -> None:
        async with house() as all_:
            _, writer = await all_.connect()
            seats = all_.processes
            draining = asyncio.ensure_future(all_.supervisor.drain(5.0))
            await until(lambda: len(all_.lead.dead) == 1)
            assert not draining.done()
            writer.close()
            await draining
            assert sorted(all_.lead.dead) == sorted(seats.values())
            assert all(all_.lead.counted[process] >= 1000 for process in seats.values())
            with pytest.raises(ConnectionRefusedError):
                await all_.connect()

    async def test_who_does_not_end_in_time_is_killed(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lb.control.supervisor.GRACE", 0.1)
        async with house(how="never ends") as all_:
            await all_.supervisor.drain(0.1)
            assert len(all_.lead.dead) == 2
        assert "doesn't end, and is killed" in caplog.text

    async def test_none_is_started_any_more(self) -> None:
        async with house() as all_:
            os.kill(all_.processes[0], signal.SIGKILL)
            await until(lambda: len(all_.lead.dead) == 1)
            await all_.supervisor.drain(1.0)
            assert not all_.processes

    @pytest.mark.parametrize("number", SIGNALS)
    async def test_signals_are_for_the_supervisor_alone(self, number: signal.Signals) -> None:
        async with house(1) as all_:
            [process] = all_.processes.values()
            os.kill(process, number)
            await asyncio.sleep(0.1)
            assert set(await all_.spread(3)) == {process}

    async def test_a_worker_whose_supervisor_is_gone_ends_by_itself(self) -> None:
        async with house(1) as all_:
            [worker] = all_.supervisor.workers
            all_.supervisor.ending = True  # so that none is started in its place
            worker.channel.close()
            await asyncio.wait_for(worker.ended.wait(), 5)
            assert worker.process.returncode == 0


class TestNewForOld:
    async def test_one_after_the_other_without_a_gap(self) -> None:
        async with house() as all_:
            before = all_.processes
            _, writer = await all_.connect()
            replacing = asyncio.ensure_future(all_.supervisor.replace_in_turn(5.0))
            served: Counter[int] = Counter()
            while not replacing.done():
                served += await all_.spread(1)
                if len(served) > 2:
                    writer.close()
            await replacing
            assert not set(before.values()) & set(all_.processes.values())
            assert set(await all_.spread(40)) == set(all_.processes.values())

    async def test_where_the_new_one_can_not_begin_the_old_ones_stay(self) -> None:
        async with house() as all_:
            before = all_.processes
            all_.supervisor.command = command("refuses")
            with pytest.raises(WorkerFailed):
                await all_.supervisor.replace_in_turn(5.0)
            assert all_.processes == before
            assert set(await all_.spread(40)) == set(before.values())


class TestReload:
    async def test_other_listeners_and_another_configuration(self) -> None:
        async with house() as all_:
            before, old = all_.processes, all_.port
            all_.lead.config = "second"
            all_.port = bound()
            await all_.supervisor.renew([all_.port], 5.0)
            old.close()
            assert await all_.configs() == ["second", "second"]
            assert all_.processes == before
            assert set(await all_.spread(40)) == set(before.values())

    async def test_the_old_address_is_given_up(self) -> None:
        async with house() as all_:
            host, port = all_.port.name.split(":")
            new = bound()
            await all_.supervisor.renew([new], 5.0)
            all_.port.close()

            def refused() -> bool:
                """Each worker closes its own in its own time."""
                with socket.socket() as probe:
                    return probe.connect_ex((host, int(port))) == ECONNREFUSED

            await until(refused)

    async def test_a_worker_that_can_not_follow_is_replaced(self, caplog: pytest.LogCaptureFixture) -> None:
        async with house() as all_:
            before = all_.processes
            all_.lead.config = "bad luck"
            await all_.supervisor.renew(all_.supervisor.ports, 5.0)
            assert await all_.configs() == ["bad luck", "bad luck"]
            assert not set(before.values()) & set(all_.processes.values())
        assert (
            "worker 1 can't go by the new configuration, and is replaced: it can't be changed" in caplog.text
        )

    async def test_where_the_new_one_can_not_either_the_old_one_stays(self) -> None:
        async with house() as all_:
            before = all_.processes
            all_.lead.config = "bad luck"
            all_.supervisor.command = command("refuses")
            with pytest.raises(WorkerFailed):
                await all_.supervisor.renew(all_.supervisor.ports, 5.0)
            assert all_.processes == before

    async def test_what_is_lent_is_lent_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lb.control.workers.BACK_OFF", (30.0, 30.0))
        async with house() as all_:
            seats = all_.processes
            all_.supervisor.command = command("refuses")
            os.kill(seats[0], signal.SIGKILL)
            await until(lambda: seats[0] in all_.lead.dead)
            assert set(await all_.spread(10)) == {seats[1]}
            old, all_.port = all_.port, bound()
            await all_.supervisor.renew([all_.port], 5.0)
            old.close()
            assert set(await all_.spread(20)) == {seats[1]}
