"""The members of a pool: what is put together, when it is applied, and who is asked first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from random import Random

import pytest

from lb.balance import policy_class
from lb.core.backend import Backend, BackendSpec
from lb.core.pool import Pool
from lb.discovery.members import MOMENT, Members
from tests.control.waiting import until
from tests.discovery.scripted import Scripted, spec, specs, watch


def a_pool(starts_healthy: bool = True) -> Pool:
    clock = asyncio.get_running_loop()
    return Pool("greeter", policy_class("p2c")(clock, Random(1)), clock, starts_healthy)


class Probes:
    """Health checks that find well whom the test says, when it says so."""

    def __init__(self) -> None:
        self.synced = 0
        self.asked: list[list[str]] = []
        self.answer: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    def sync(self) -> None:
        self.synced += 1

    async def find_well(self, backends: Sequence[Backend], within: float, enough: int = 0) -> list[Backend]:
        assert enough == 1
        self.asked.append([each.id for each in backends])
        found = await self.answer
        return [each for each in backends if each.id in found]


class Told:
    """A watch as far as members know it."""

    def __init__(self, name: str = "told") -> None:
        self.watch = watch(Scripted(), name)

    def names(self, *found: BackendSpec) -> None:
        self.watch.specs = found
        self.watch.on_set()


def ids(pool: Pool) -> list[str]:
    return list(pool.backends)


async def test_the_first_change_is_applied_at_once_and_the_next_ones_together() -> None:
    pool, told = a_pool(), Told()
    updates = []
    pool.on_changed = lambda: updates.append(ids(pool))
    members = Members(pool)
    members.adopt(specs(1), [told.watch], None)
    told.names(spec(2))
    assert ids(pool) == ["b1", "b2"]
    count = len(updates)
    for number in range(3, 50):
        told.names(spec(number))
    assert len(updates) == count
    await until(lambda: ids(pool) == ["b1", "b49"])
    assert len(updates) == count + 1
    await asyncio.sleep(MOMENT * 1.5)
    told.names(spec(2))
    assert ids(pool) == ["b1", "b2"]
    members.close()


async def test_several_that_come_after_a_quiet_time_wait_no_longer_than_a_moment() -> None:
    """As when a Deployment is scaled up, and four pods get ready some milliseconds apart."""
    pool, told = a_pool(), Told()
    members = Members(pool)
    members.adopt((), [told.watch], None)
    clock = asyncio.get_running_loop()
    for last in range(1, 5):
        told.names(*specs(*range(last + 1)))
        assert members._gathering is not None
        assert members._gathering.when() - clock.time() <= MOMENT
        await until(lambda last=last: len(ids(pool)) == last + 1)
    members.close()


async def test_a_backend_that_flaps_within_a_moment_keeps_all_it_has() -> None:
    pool, told = a_pool(), Told()
    members = Members(pool)
    members.adopt((), [told.watch], None)
    told.names(*specs(1, 2))
    flapping = pool.backends["b2"]
    flapping.requests[200] = 7
    for _ in range(20):
        told.names(*specs(1))
        told.names(*specs(1, 2))
    await asyncio.sleep(MOMENT * 1.5)
    assert pool.backends["b2"] is flapping
    members.close()


async def test_who_stays_keeps_state_and_weight_set_by_hand() -> None:
    pool, told = a_pool(), Told()
    members = Members(pool)
    members.adopt((), [told.watch], None)
    told.names(*specs(1, 2))
    pool.set_state(pool.backends["b1"], "draining")
    pool.set_weight(pool.backends["b2"], 9)
    told.names(*specs(3, 2, 1))
    await until(lambda: "b3" in pool.backends)
    assert pool.backends["b1"].state == "draining"
    assert pool.backends["b2"].configured_weight == 9
    members.close()


async def test_an_equal_set_is_no_update() -> None:
    pool, told = a_pool(), Told()
    members = Members(pool)
    members.adopt(specs(1), [told.watch], None)
    changes = []
    pool.on_changed = lambda: changes.append(1)
    told.names(spec(1))  # which is there already
    assert not changes
    members.close()


async def test_the_log_says_who_joined_and_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pool, told = a_pool(), Told()
    members = Members(pool)
    members.adopt(specs(1, 2), [told.watch], None)
    members.adopt((spec(2, weight=5), BackendSpec("b1", "10.0.0.9", 1)), [told.watch], None)
    told.names(*specs(*range(10, 20)))
    assert [record.message for record in caplog.records] == [
        "pool greeter: b1, b2 joined; 2 backends",
        "pool greeter: b1 joined, b1 left, b2 changed; 2 backends",
        "pool greeter: b10, b11, b12, b13, b14 and 5 more joined; 12 backends",
    ]
    members.close()


async def test_new_ones_are_probed_before_all_old_ones_leave() -> None:
    pool, told, probes = a_pool(starts_healthy=False), Told(), Probes()
    members = Members(pool)
    members.adopt((), [told.watch], probes)
    told.names(*specs(1, 2))
    for backend in pool.backends.values():
        pool.set_health(backend, True)
    await asyncio.sleep(MOMENT * 1.5)
    told.names(*specs(3, 4))
    await until(lambda: probes.asked)
    assert ids(pool) == ["b1", "b2"]
    assert probes.asked == [["b3", "b4"]]
    told.names(*specs(3, 4, 5))  # another change meanwhile
    probes.answer.set_result(["b4"])
    await until(lambda: ids(pool) == ["b3", "b4", "b5"])
    assert [each.id for each in pool.eligible] == ["b4"]
    members.close()


async def test_nobody_is_asked_where_some_stay_who_are_well() -> None:
    pool, told, probes = a_pool(starts_healthy=False), Told(), Probes()
    members = Members(pool)
    members.adopt((), [told.watch], probes)
    told.names(*specs(1, 2))
    pool.set_health(pool.backends["b1"], True)
    await asyncio.sleep(MOMENT * 1.5)
    synced = probes.synced
    told.names(*specs(1, 3))
    assert ids(pool) == ["b1", "b3"]
    assert (probes.asked, probes.synced) == ([], synced + 1)
    members.close()


async def test_an_empty_set_empties_the_pool() -> None:
    pool, told, probes = a_pool(), Told(), Probes()
    members = Members(pool)
    members.adopt((), [told.watch], probes)
    told.names(*specs(1))
    await asyncio.sleep(MOMENT * 1.5)
    told.names()
    assert ids(pool) == []
    members.close()


async def test_after_the_end_nothing_changes() -> None:
    pool, told = a_pool(), Told()
    members = Members(pool)
    members.adopt(specs(1), [told.watch], None)
    told.names(spec(2))
    told.names(spec(3))
    members.close()
    told.names(spec(4))
    await asyncio.sleep(MOMENT * 1.5)
    assert ids(pool) == ["b1", "b2"]
