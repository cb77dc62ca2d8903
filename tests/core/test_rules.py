"""What a pool does unless it is told otherwise."""

from lb.core.rules import OutlierRules, PoolRules, RetryRules


def test_all_is_off_unless_said() -> None:
    rules = PoolRules()
    assert (rules.outliers, rules.retries) == (None, None)
    assert not any((rules.slow_start, rules.panic_threshold, rules.requests, rules.requests_per_backend))
    assert not any((rules.connections, rules.connections_per_backend, rules.queue))


def test_what_is_turned_on_has_the_defaults_of_the_design() -> None:
    outliers, retries = OutlierRules(), RetryRules()
    assert (outliers.consecutive_failures, outliers.ejection, outliers.max_ejection) == (5, 10.0, 300.0)
    assert (outliers.max_ejected, outliers.failure_rate, outliers.enforce) == (0.5, None, True)
    assert (retries.attempts, retries.share, retries.least, retries.body) == (1, 0.2, 3, 65536)
    assert outliers.statuses == retries.statuses == {502, 503, 504}
