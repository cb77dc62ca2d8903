"""First come, first served, and never more than fit."""

import pytest

from lb.core.queue import Waiting
from tests.core.clock import VirtualClock


class Someone:
    """Waits."""

    def on_turn(self) -> None: ...


def made_waiting(most: int) -> Waiting:
    return Waiting(most, VirtualClock(), lambda freed: False)


def test_first_come_first_served() -> None:
    waiting = made_waiting(3)
    a, b, c = Someone(), Someone(), Someone()
    assert [waiting.join(each) for each in (a, b, c)] == [True] * 3
    waiting.leave(b)
    assert len(waiting) == 2
    assert [waiting.next(), waiting.next()] == [a, c]
    with pytest.raises(KeyError):
        waiting.next()


def test_who_finds_no_place_does_not_wait() -> None:
    waiting = made_waiting(1)
    a, b = Someone(), Someone()
    assert waiting.join(a)
    assert waiting.join(a), "it has a place already"
    assert not waiting.join(b)
    waiting.leave(b)
    assert len(waiting) == 1
    waiting.leave(a)
    assert waiting.join(b)


def test_who_had_its_turn_in_vain_is_the_first_again() -> None:
    waiting = made_waiting(2)
    a, b, c = Someone(), Someone(), Someone()
    waiting.join(a)
    waiting.join(b)
    assert waiting.next() is a
    waiting.join(c)
    assert waiting.join(a, first=True)
    assert [waiting.next() for _ in range(3)] == [a, b, c]


def test_with_no_places_nobody_waits() -> None:
    assert not made_waiting(0).join(Someone())
