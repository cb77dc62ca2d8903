"""How fast changes are passed on."""

from __future__ import annotations

import pytest

from lb.discovery import base
from lb.discovery.base import PART, SAVED, Pace


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(base, "monotonic", lambda: self.now)


def test_some_changes_after_a_quiet_time_need_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    pace, small = Pace(), SAVED * PART / 8
    assert [pace.rest_after(small) for _ in range(8)] == [0.0] * 8
    assert pace.rest_after(small) == pytest.approx(small / PART)


def test_changes_without_an_end_take_no_more_than_their_part(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pace = Clock(monkeypatch), Pace()
    began, spent = clock.now, 0.0
    for _ in range(1000):
        spent += 0.0005
        clock.now += 0.0005 + pace.rest_after(0.0005)
    assert spent / (clock.now - began) == pytest.approx(PART, rel=0.05)


def test_what_is_saved_is_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pace = Clock(monkeypatch), Pace()
    pace.rest_after(0.001)
    clock.now += 3600
    assert pace.rest_after(2 * SAVED * PART) == pytest.approx(SAVED)
