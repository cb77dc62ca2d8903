"""What a backend says of itself, and how durations are counted."""

import pytest

from lb.core.backend import ACTIVE, BOUNDS, DISABLED, DRAINING, Backend, BackendSpec, Ejection, Histogram


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1:80"), ("greeter.test", "greeter.test:80"), ("::1", "[::1]:80")],
)
def test_an_address_can_be_read_back(host: str, address: str) -> None:
    assert BackendSpec("a", host, 80).address == address


@pytest.mark.parametrize(
    ("state", "healthy", "weight", "reason"),
    [
        (ACTIVE, True, 1, ""),
        (ACTIVE, True, 0, "weight 0"),
        (ACTIVE, False, 1, "unhealthy"),
        (ACTIVE, False, 0, "unhealthy"),
        (DRAINING, True, 1, "draining"),
        (DISABLED, True, 1, "disabled"),
        (DISABLED, False, 0, "disabled"),
    ],
)
def test_why_a_backend_is_excluded(state: str, healthy: bool, weight: int, reason: str) -> None:
    backend = Backend(BackendSpec("a", "h", 1, weight), healthy)
    backend.state = state
    assert backend.excluded == reason


def test_who_is_out_or_stands_by_says_so_after_what_is_graver() -> None:
    backend = Backend(BackendSpec("a", "h", 1))
    backend.standby = "standby"
    assert backend.excluded == "standby"
    backend.ejection = Ejection("ejected (5 failures in a row, for 10 s)", 10.0)
    assert backend.excluded == "ejected (5 failures in a row, for 10 s)"
    backend.ejection.closed = False
    assert backend.excluded == "standby"
    backend.healthy = False
    assert backend.excluded == "unhealthy"


@pytest.mark.parametrize(
    ("state", "weight", "judged", "active"),
    [
        (ACTIVE, 1, True, True),
        (ACTIVE, 0, True, False),
        (ACTIVE, 1, False, False),
        (DRAINING, 1, True, False),
    ],
)
def test_who_is_meant_to_serve(state: str, weight: int, judged: bool, active: bool) -> None:
    backend = Backend(BackendSpec("a", "h", 1, weight), judged)
    backend.state = state
    assert backend.active is active


class TestHistogram:
    """Prometheus' buckets: how many were no larger than each bound."""

    def test_an_empty_one_has_all_bounds(self) -> None:
        pairs = Histogram().cumulative()
        assert [bound for bound, _ in pairs] == [*map(repr, BOUNDS), "+Inf"]
        assert {count for _, count in pairs} == {0}

    def test_a_duration_on_the_bound_belongs_to_it(self) -> None:
        histogram = Histogram()
        histogram.observe(0.01)
        counts = dict(histogram.cumulative())
        assert (counts["0.005"], counts["0.01"], counts["0.025"]) == (0, 1, 1)

    def test_counts_add_up(self) -> None:
        histogram = Histogram()
        for seconds in (0.0, 0.0001, 0.002, 0.002, 0.3, 59.9, 61.0, 3600.0):
            histogram.observe(seconds)
        counts = dict(histogram.cumulative())
        assert counts["0.0005"] == 2
        assert counts["0.0025"] == counts["0.25"] == 4
        assert counts["0.5"] == counts["30.0"] == 5
        assert counts["60.0"] == 6
        assert counts["+Inf"] == 8
        assert histogram.total == pytest.approx(0.0001 + 0.004 + 0.3 + 59.9 + 61.0 + 3600.0)
