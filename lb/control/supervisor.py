"""Worker processes: started, watched, started anew when they die, and drained at the end.

A worker is a program of its own, begun by exec and not by fork: a copy of a running event loop, with its
threads and locks, is nothing that one can run. It gets two sockets, by their numbers as the last arguments:
a channel, and the way by which descriptors come. See lb/control/workplace.py for the other side.

    seat    one of N. A worker has it; when it dies, its successor does
    row     a worker's row in the load table. There is one more than seats, so that a successor can begin
            while its predecessor still ends what it has under way

When a worker dies, its row is cleared, its gauges go, and its listening sockets are lent to another worker
until a successor is ready. That one is started at once; where it dies within seconds too, the next one waits,
longer each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from lb.control.channel import AskRefused, Channel, ChannelClosed, pair, pair_for_descriptors
from lb.control.messages import Begin, Collect, Drain, Hello, Lend, Listeners, Message, TakeBack
from lb.control.ports import Port
from lb.control.shared_memory import SharedTable
from lb.control.workers import TABLE, Seat, Worker, end_in_words, longer, started

log = logging.getLogger("lb.workers")

START = 30.0  # seconds that a worker may take to begin
LAST_WORDS = 1.0  # seconds to read what a dead worker has said
GRACE = 2.0  # seconds beyond the time for draining, before a worker is killed

AT_ONCE = 0.5  # seconds that workers have for their last words when all is to end at once


class WorkerFailed(Exception):
    """A worker couldn't begin. The text is why."""


class Lead(Protocol):
    """Whose workers they are: what they have to know, and who hears what they say."""

    def greeting(self) -> Iterable[Message]:
        """What a new worker has to know before it begins."""

    def heard(self, worker: Worker, message: Message) -> None:
        """A worker has said something that needs no answer: its counts."""

    def gone(self, worker: Worker) -> None:
        """A worker has ended, whether it was to or not. Its row of the load table is clear."""


class Supervisor:
    """Keeps a worker on each of `count` seats. The table needs a row more than that."""

    def __init__(
        self, command: Sequence[str], count: int, shared: SharedTable, ports: Sequence[Port], lead: Lead
    ) -> None:
        self.command = command
        self.ports = ports
        self.lead = lead
        self.ending = False
        self._shared = shared
        self._seats = [Seat(number) for number in range(count)]
        self._renewals = 0
        self._living: set[Worker] = set()
        self._burials: set[asyncio.Task[None]] = set()

    @property
    def workers(self) -> list[Worker]:
        """Those that serve or still end what they have under way."""
        return [worker for worker in self._living if worker.ready]

    # --- starting ---

    async def start(self) -> None:
        """Starts all. Raises WorkerFailed, and then none is left."""
        found = await asyncio.gather(*map(self._fill, self._seats), return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                await self.close()
                raise each

    async def _fill(self, seat: Seat) -> None:
        """Puts a new worker on a seat. Raises WorkerFailed, and then it is as it was."""
        worker = await self._spawn(seat.number)
        renewals = self._renewals
        try:
            await self._greet(worker)
            while renewals != self._renewals:  # there was a reload meanwhile, which has passed it over
                renewals = self._renewals
                await self._greet(worker)
        except AskRefused as refused:
            reason = str(refused)
        except TimeoutError:
            reason = f"it was not ready within {START:g} s"
        except ChannelClosed:
            with contextlib.suppress(TimeoutError):  # it is about to end, and how says more than we could
                await asyncio.wait_for(worker.ended.wait(), 1.0)
            reason = f"it {end_in_words(worker.process.returncode)}"
        except BaseException:
            worker.kill()
            raise
        else:
            if not self.ending and worker in self._living:
                worker.ready = True
                seat.worker = worker
                self._lend()
                return
            reason = "it was not needed any more" if self.ending else "it has ended"
        worker.kill()
        await worker.ended.wait()
        raise WorkerFailed(f"worker {seat.number}: {reason}")

    async def _spawn(self, seat: int) -> Worker:
        row = min(set(range(self._shared.rows)) - {worker.row for worker in self._living})
        ours, theirs = pair()
        way, their_way = pair_for_descriptors()
        with theirs, their_way:
            try:
                process = started(self.command, theirs.fileno(), their_way.fileno())
            except OSError:
                ours.close()
                way.close()
                raise
        worker = Worker(seat, row, process)
        self._living.add(worker)
        watch = os.pidfd_open(process.pid)  # readable when it has ended
        asyncio.get_running_loop().add_reader(watch, self._on_end, worker, watch)
        way.setblocking(False)
        worker.way = way
        worker.channel = await Channel.over(
            ours,
            on_message=lambda message: self.lead.heard(worker, message),
            on_lost=lambda: self._on_silence(worker),
        )
        return worker

    async def _greet(self, worker: Worker) -> None:
        sockets = self._sockets(worker.seat, self.ports)
        if worker.greeted:
            worker.give(sockets, Listeners())
        else:
            hello = Hello(worker.seat, worker.row, self._shared.rows)
            worker.give({TABLE: self._shared.descriptor, **sockets}, hello)
        for message in self.lead.greeting():
            worker.channel.tell(message)
        worker.greeted = True
        await worker.channel.ask(Begin(), START)

    def _sockets(self, seat: int, ports: Iterable[Port]) -> dict[str, int]:
        return {port.name: port.of(seat).fileno() for port in ports}

    # --- watching ---

    def _on_end(self, worker: Worker, watch: int) -> None:
        asyncio.get_running_loop().remove_reader(watch)
        os.close(watch)
        code = worker.process.wait()  # it has ended, so there is nothing to wait for
        self._living.discard(worker)
        self._shared.table.clear(worker.row)
        seat = self._seats[worker.seat]
        if seat.worker is worker:  # and not one that has never begun, or has a successor
            seat.worker = None
            if not self.ending:
                self._replace_dead(seat, worker, code)
        self._lend()
        burial = asyncio.ensure_future(self._bury(worker))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)

    async def _bury(self, worker: Worker) -> None:
        """Hears its last words, which may still be in the channel."""
        with contextlib.suppress(TimeoutError):
            await worker.channel.heard_all(LAST_WORDS)
        worker.channel.close()
        if worker.way is not None:
            worker.way.close()
        self.lead.gone(worker)
        worker.ended.set()

    def _on_silence(self, worker: Worker) -> None:
        """A worker that hears us no more ends by itself, and is killed if it doesn't."""
        if not worker.ended.is_set():
            asyncio.get_running_loop().call_later(GRACE, worker.kill)

    def _replace_dead(self, seat: Seat, worker: Worker, code: int) -> None:
        """Starts another one, now or later."""
        pause = seat.bereaved()
        log.error(
            "worker %d (process %d) %s; another one is started %s",
            seat.number,
            worker.pid,
            end_in_words(code),
            f"in {pause:g} s" if pause else "at once",
        )
        seat.filling = asyncio.ensure_future(self._fill_again(seat, pause))

    async def _fill_again(self, seat: Seat, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            try:
                async with seat.changing:
                    if seat.worker is None:
                        await self._fill(seat)
                        log.info("worker %d is back", seat.number)
                return
            except (WorkerFailed, OSError) as error:
                pause = longer(pause)
                log.error("%s; the next one is started in %g s", error, pause)

    def _lend(self) -> None:
        """Sees that someone accepts for each seat: its own worker, or else one of another seat."""
        own = [port for port in self.ports if not port.shared]
        able = [seat.worker for seat in self._seats if seat.worker is not None and seat.worker.ready]
        for seat in self._seats:
            if seat.lent_to not in able:
                seat.lent_to = None
            if seat.ready and seat.lent_to is not None:
                seat.lent_to.channel.tell(TakeBack(seat.number))
                seat.lent_to = None
            elif own and able and not seat.ready and seat.lent_to is None and not self.ending:
                seat.lent_to = able[seat.number % len(able)]
                seat.lent_to.give(self._sockets(seat.number, own), Lend(seat.number))

    # --- talking ---

    def tell(self, message: Message) -> None:
        """Says it to all, those included that are about to begin and have their greeting already."""
        for worker in self._living:
            if worker.greeted:
                worker.channel.tell(message)

    async def ask(self, message: Message, timeout: float) -> list[Message]:
        """The answers of all that serve. Who refuses, dies or takes longer than that is left out."""
        workers = self.workers
        asked = (worker.channel.ask(message, timeout) for worker in workers)
        found = await asyncio.gather(*asked, return_exceptions=True)
        return list(_answers(found))

    async def all_heard(self, timeout: float) -> bool:
        """Whether every process that there is has heard all that was said until now."""
        workers = set(self._living)
        return len(await self.ask(Collect(), timeout)) == len(workers) and workers >= self._living

    # --- reloading ---

    async def renew(self, ports: Sequence[Port], timeout: float) -> None:
        """Greets all once more, after a reload. The old listeners are for the caller to close afterwards.

        A worker that can't go by what it is told makes room for a new one, and has so many seconds to drain.
        Raises WorkerFailed where the new one can't either; it is logged too, since the others have changed.
        """
        for seat in self._seats:
            if seat.lent_to is not None:
                seat.lent_to.channel.tell(TakeBack(seat.number))
                seat.lent_to = None
        self.ports = ports
        self._renewals += 1
        seats = [seat for seat in self._seats if seat.worker is not None]
        greeted = [self._greet(seat.worker) for seat in seats if seat.worker is not None]
        found = await asyncio.gather(*greeted, return_exceptions=True)
        self._lend()
        for seat, error in zip(seats, found, strict=True):
            if error is None:
                continue
            log.error("worker %d can't go by the new configuration, and is replaced: %s", seat.number, error)
            try:
                await self._replace(seat, timeout)
            except WorkerFailed as failed:
                log.error("%s; the old one stays, with the old configuration", failed)
                raise

    # --- ending ---

    async def replace_in_turn(self, timeout: float) -> None:
        """New workers for old, one seat after the other: the new one begins, then the old one is drained.

        Raises WorkerFailed where a new one can't begin; the old one stays then, as do the rest.
        """
        for seat in self._seats:
            await self._replace(seat, timeout)

    async def _replace(self, seat: Seat, timeout: float) -> None:
        async with seat.changing:
            old = seat.worker
            if old is None:
                return  # a new one is on its way
            await self._fill(seat)
        await self._drain(old, timeout)

    async def drain(self, timeout: float) -> None:
        """Ends all at the same time: what is under way has so many seconds. Listening sockets are closed."""
        self.ending = True
        await self._stop_filling()
        for port in self.ports:
            port.close()
        await asyncio.gather(*(self._drain(worker, timeout) for worker in set(self._living)))

    async def _drain(self, worker: Worker, timeout: float) -> None:
        worker.channel.tell(Drain(timeout))
        try:
            await asyncio.wait_for(worker.ended.wait(), timeout + GRACE)
        except TimeoutError:
            log.warning("worker %d (process %d) doesn't end, and is killed", worker.seat, worker.pid)
            worker.kill()
            await worker.ended.wait()

    async def close(self) -> None:
        """Ends at once whatever is left, but for a last word to clients that wait."""
        self.ending = True
        await self._stop_filling()
        for port in self.ports:
            port.close()
        left = set(self._living)
        for worker in left:
            worker.channel.tell(Drain(0.0))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AT_ONCE):
                await asyncio.gather(*(worker.ended.wait() for worker in left))
        for worker in left:
            worker.kill()
            await worker.ended.wait()
        await asyncio.gather(*self._burials)

    async def _stop_filling(self) -> None:
        tasks = [seat.filling for seat in self._seats if seat.filling is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _answers(found: Iterable[Message | BaseException]) -> Iterator[Message]:
    for each in found:
        if isinstance(each, Message):
            yield each
        elif not isinstance(each, AskRefused | ChannelClosed | TimeoutError):
            raise each
