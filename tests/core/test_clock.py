"""The virtual clock that other tests are driven by."""

from tests.core.clock import VirtualClock


def test_what_is_due_is_called_at_its_own_time_and_in_order() -> None:
    clock = VirtualClock(now=10.0)
    calls: list[tuple[str, float]] = []

    def note(name: str) -> None:
        calls.append((name, clock.time()))

    clock.call_later(2.0, note, "second")
    clock.call_later(1.0, note, "first")
    clock.call_later(2.0, note, "third")
    clock.call_later(9.0, note, "not yet")
    clock.call_later(1.5, note, "cancelled").cancel()
    clock.advance(5.0)
    assert calls == [("first", 11.0), ("second", 12.0), ("third", 12.0)]
    assert clock.time() == 15.0


def test_a_call_may_ask_for_another_one() -> None:
    clock = VirtualClock(now=0.0)
    ticks: list[float] = []

    def tick() -> None:
        ticks.append(clock.time())
        clock.call_later(1.0, tick)

    clock.call_later(1.0, tick)
    clock.advance(3.5)
    assert ticks == [1.0, 2.0, 3.0]
