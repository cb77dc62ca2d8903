"""By chance and by weight, whatever the load."""

from collections import Counter

from lb.core.pool import Pool
from tests.balance.chance import SIGMAS, assert_shares
from tests.core.fleet import load, made_pool, numbered, picked, served, specs


def chi_square(counts: Counter[str], pool: Pool) -> float:
    total = sum(backend.weight for backend in pool.eligible)
    draws = counts.total()
    expected = {backend.id: draws * backend.weight / total for backend in pool.eligible}
    return sum((counts[name] - mean) ** 2 / mean for name, mean in expected.items())


def assert_fits(pool: Pool, draws: int) -> None:
    """Chi square of n counts has a mean of n - 1 and a variance of twice that."""
    freedom = len(pool.eligible) - 1
    fit = chi_square(Counter(served(pool, draws)), pool)
    assert abs(fit - freedom) < SIGMAS * (2 * freedom) ** 0.5  # too good a fit is no chance either


def test_equal_ones_are_drawn_equally() -> None:
    assert_fits(made_pool(numbered([1] * 40), "random"), 8000)


def test_others_by_weight() -> None:
    assert_fits(made_pool(numbered(range(1, 41)), "random"), 20_000)


def test_the_load_does_not_matter() -> None:
    pool = made_pool(specs(a=1, b=1), "random")
    load(pool, a=50)
    assert_shares(Counter(picked(pool).id for _ in range(2000)), 2000, {"a": 0.5, "b": 0.5})


def test_a_draw_does_not_depend_on_the_one_before() -> None:
    """Of two equal ones, each pair of draws in a row comes equally often."""
    names = served(made_pool(specs(a=1, b=1), "random"), 8000)
    pairs = Counter(one + other for one, other in zip(names[::2], names[1::2], strict=True))
    assert_shares(pairs, 4000, dict.fromkeys(("aa", "ab", "ba", "bb"), 0.25))
