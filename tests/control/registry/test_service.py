"""A service of the registry as a pool's source sees it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lb.control.registry.model import CRITICAL, PASSING, WARNING, State
from lb.control.registry.registry import Registry
from lb.control.registry.store import MemoryStore
from lb.registrar import RegisteredService
from tests.control.registry.scene import checked, instance
from tests.core.clock import VirtualClock

NAMES = st.sampled_from("abcd")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, st.integers(1, 3), st.sampled_from(["greeter", "other"])),
        st.tuples(st.just("check"), NAMES, st.sampled_from([PASSING, WARNING, CRITICAL])),
        st.tuples(st.just("remove"), NAMES),
        st.tuples(st.just("ask")),
        st.tuples(st.just("listen anew")),
    ),
    max_size=30,
)


@given(STEPS)
def test_what_it_keeps_is_what_the_table_says(steps: list[tuple[object, ...]]) -> None:
    registry = Registry(MemoryStore(), VirtualClock())
    table = registry.table
    kept = RegisteredService(registry, "greeter", ())
    stop = kept.listen(lambda: None)
    for step in [*steps, ("ask",)]:
        match step:
            case ("put", str(name), int(port), str(service)):
                table.put(replace(checked(name), service=service, port=port), {})
            case ("check", str(name), str(status)):
                table.set_state(name, f"service:{name}", State(status))
            case ("remove", str(name)):
                table.remove(name)
            case ("listen anew",):
                stop()
                stop = kept.listen(lambda: None)
            case _:
                afresh = RegisteredService(registry, "greeter", ()).backends()
                assert {spec.id: spec for spec in kept.backends()} == {spec.id: spec for spec in afresh}


def test_only_who_has_changed_is_another_one() -> None:
    registry = Registry(MemoryStore(), VirtualClock())
    service = RegisteredService(registry, "greeter", ())
    heard: list[bool] = []
    stop = service.listen(lambda: heard.append(True))
    for name in "abc":
        registry.table.put(instance(name), {})
    a, _, c = service.backends()
    registry.table.put(replace(instance("b"), weights=(5, 5)), {})
    first, second, third = service.backends()
    assert first is a
    assert third is c
    assert second.weight == 5
    registry.table.put(replace(instance("b"), weights=(5, 5), tags=("new",)), {})  # not for a pool
    assert service.backends()[1] is second
    assert len(heard) == 5
    stop()
    registry.table.put(instance("d"), {})
    assert len(heard) == 5
    assert [spec.id for spec in RegisteredService(registry, "greeter", ("new",)).backends()] == ["b"]
