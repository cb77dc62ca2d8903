"""Retries are a share of the traffic, and a few a second where there is hardly any."""

from hypothesis import given
from hypothesis import strategies as st

from lb.core.budget import RetryBudget
from tests.core.clock import VirtualClock


def made_budget(share: float = 0.2, least: int = 3, window: int = 10) -> RetryBudget:
    return RetryBudget(VirtualClock(1000.0), share, least, window)


def taken(budget: RetryBudget, now: float, tries: int = 1000) -> int:
    return sum(budget.take(now) for _ in range(tries))


def test_without_traffic_a_few_are_allowed() -> None:
    assert taken(made_budget(least=3, window=10), 1000.5) == 30
    assert taken(made_budget(least=0), 1000.5) == 0


def test_a_share_of_the_traffic() -> None:
    budget = made_budget(share=0.2, least=0)
    for _ in range(1000):
        budget.on_request(1000.5)
    assert taken(budget, 1000.9) == 200
    budget.on_request(1001.0)
    assert taken(budget, 1001.0) == 1  # 200.2 are allowed
    for _ in range(5):
        budget.on_request(1001.0)
    assert taken(budget, 1001.0) == 1


def test_what_was_longer_ago_than_the_window_is_forgotten() -> None:
    budget = made_budget(share=0.5, least=0, window=10)
    for _ in range(100):
        budget.on_request(1000.0)
    assert taken(budget, 1000.0) == 50
    assert taken(budget, 1009.9) == 0
    for _ in range(10):
        budget.on_request(1010.0)
    assert taken(budget, 1010.0) == 5
    assert taken(budget, 5000.0) == 0


def test_a_time_a_little_back_is_as_good_as_now() -> None:
    budget = made_budget(share=1.0, least=0)
    budget.on_request(1005.0)
    budget.on_request(1004.9)
    assert taken(budget, 1004.8) == 2


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), max_size=200), st.floats(0.0, 1.0))
def test_never_more_than_the_share_of_the_window(steps: list[tuple[float, bool]], share: float) -> None:
    """Checked against all that was ever asked, in the last ten whole seconds."""
    budget = made_budget(share, least=1)
    now, requests, retries = 1000.0, list[int](), list[int]()
    for passed, is_retry in steps:
        now += passed
        second = int(now)
        if not is_retry:
            budget.on_request(now)
            requests.append(second)
            continue
        recent_requests = sum(second - 10 < each for each in requests)
        recent_retries = sum(second - 10 < each for each in retries)
        allowed = recent_retries < max(share * recent_requests, 10)
        assert budget.take(now) is allowed
        if allowed:
            retries.append(second)
