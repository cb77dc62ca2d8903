"""Heartbeats, on virtual time; and what registering anew keeps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lb.control.registry.expiry import Deadlines
from lb.control.registry.model import CRITICAL, PASSING, WARNING, State
from lb.control.registry.registry import Registry, Unknown
from lb.control.registry.requests import Wrong
from lb.control.registry.store import MemoryStore, Unavailable
from lb.simulate.clock import VirtualClock
from tests.control.registry.scene import checked, instance

CRIT, PASS = {"service:a": State(CRITICAL)}, {"service:a": State(PASSING)}


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def registry(clock: VirtualClock) -> Any:
    registry = Registry(MemoryStore(), clock)
    await registry.open()
    yield registry
    await registry.close()


async def pass_time(clock: VirtualClock, seconds: float) -> None:
    clock.run(clock.time() + seconds)
    for _ in range(5):
        await asyncio.sleep(0)


def status(registry: Registry, name: str = "a") -> str:
    return registry.table.entries[name].status


async def test_in_with_the_first_heartbeat_and_out_when_they_stop(
    registry: Registry, clock: VirtualClock
) -> None:
    await registry.register(checked("a", 10.0), CRIT)
    assert status(registry) == CRITICAL
    await registry.report("service:a", State(PASSING))
    for _ in range(5):
        await pass_time(clock, 9.0)
        assert status(registry) == PASSING
        await registry.report("service:a", State(PASSING))
    await pass_time(clock, 9.9)
    assert status(registry) == PASSING
    await pass_time(clock, 0.2)
    assert status(registry) == CRITICAL
    assert registry.table.entries["a"].states["service:a"].output == "TTL expired"
    await registry.report("service:a", State(WARNING, "hot"))
    assert status(registry) == WARNING


async def test_who_is_critical_for_too_long_is_deregistered(registry: Registry, clock: VirtualClock) -> None:
    await registry.register(checked("a", 10.0, deregister_after=60.0), PASS)
    await pass_time(clock, 10.1)
    await pass_time(clock, 59.0)
    assert status(registry) == CRITICAL
    await registry.report("service:a", State(PASSING))
    await pass_time(clock, 9.0)
    await registry.report("service:a", State(CRITICAL))
    await pass_time(clock, 59.0)
    assert "a" in registry.table.entries
    await pass_time(clock, 1.1)
    assert "a" not in registry.table.entries


async def test_someone_who_comes_again_is_not_judged_by_old_deadlines(
    registry: Registry, clock: VirtualClock
) -> None:
    await registry.register(checked("a", 10.0, deregister_after=60.0), CRIT)
    await pass_time(clock, 50.0)
    await registry.deregister("a")
    await registry.register(checked("a", 10.0, deregister_after=60.0), PASS)
    await pass_time(clock, 9.0)
    assert status(registry) == PASSING
    await pass_time(clock, 20.0)
    assert status(registry) == CRITICAL


async def test_registering_anew_keeps_what_checks_say(registry: Registry, clock: VirtualClock) -> None:
    await registry.register(checked("a", 10.0), CRIT)
    await registry.report("service:a", State(PASSING))
    await pass_time(clock, 9.0)
    await registry.register(checked("a", 10.0, notes="new"), CRIT)
    assert status(registry) == PASSING
    await pass_time(clock, 9.0)  # it was a heartbeat, too
    assert status(registry) == PASSING


async def test_other_checks_stay_unless_they_are_to_go(registry: Registry) -> None:
    await registry.register(checked("a"), PASS)
    await registry.register(instance("a"), {})
    assert list(registry.table.entries["a"].states) == ["service:a"]
    await registry.register(instance("a"), {}, replace=True)
    assert not registry.table.entries["a"].states
    with pytest.raises(Unknown):
        await registry.report("service:a", State(PASSING))


async def test_maintenance_outlasts_heartbeats_and_registering(registry: Registry) -> None:
    await registry.register(checked("a"), PASS)
    await registry.set_maintenance("a", True, "a new disk")
    await registry.report("service:a", State(PASSING))
    await registry.register(checked("a"), PASS)
    assert status(registry) == CRITICAL
    await registry.set_maintenance("a", False, "")
    assert status(registry) == PASSING


async def test_a_check_belongs_to_one(registry: Registry) -> None:
    await registry.register(checked("a"), PASS)
    with pytest.raises(Wrong, match="is one of a already"):
        await registry.register(instance("b"), PASS)
    assert "b" not in registry.table.entries


async def test_strangers_are_unknown(registry: Registry) -> None:
    for change in (
        registry.deregister("x"),
        registry.report("x", State(PASSING)),
        registry.remove_check("x"),
        registry.set_maintenance("x", True, ""),
    ):
        with pytest.raises(Unknown, match='"x"'):
            await change


async def test_what_the_store_does_not_take_is_tried_again(clock: VirtualClock) -> None:
    class Moody(MemoryStore):
        well = False

        async def set_state(self, *change: Any) -> None:
            if not self.well:
                raise Unavailable("not now")
            await super().set_state(*change)

    store = Moody()
    registry = Registry(store, clock)
    await registry.open()
    store.well = True
    await registry.register(checked("a", 10.0), PASS)
    store.well = False
    await pass_time(clock, 10.1)
    assert status(registry) == PASSING
    store.well = True
    await pass_time(clock, 1.1)
    assert status(registry) == CRITICAL
    await registry.close()


def test_deadlines_cost_one_timer(clock: VirtualClock) -> None:
    passed: list[Any] = []
    deadlines = Deadlines(clock, passed.append)
    for number in range(100):
        deadlines.set((str(number), ""), 10.0)
    clock.run(9.0)
    for number in range(100):
        deadlines.set((str(number), ""), 10.0)
    deadlines.set(("7", ""), 1.0)  # sooner
    deadlines.drop(("8", ""))
    clock.run(11.0)
    assert passed == [("7", "")]
    clock.run(19.5)
    assert len(passed) == 99
    assert ("8", "") not in passed
