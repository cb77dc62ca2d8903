"""One set of several, once and from one change to the next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lb.core.backend import BackendSpec
from lb.discovery.union import Union, union
from tests.discovery.scripted import spec, specs

POOL = [BackendSpec(f"b{name}", f"10.0.0.{place}", 9000) for name in range(5) for place in range(4)]
"""Of these, many have the same ID, and many the same address."""

A_SET = st.lists(st.sampled_from(POOL), max_size=8).map(tuple)
SETS = st.tuples(A_SET, A_SET, A_SET)


def test_the_first_to_name_a_backend_wins() -> None:
    same_id = BackendSpec("b1", "10.0.0.9", 9009)
    same_address = BackendSpec("other", "10.0.0.1", 9002, weight=5)
    made = Union()
    found = made.of(specs(1), [("dns", (same_id, spec(2))), ("file", (same_address, spec(3)))])
    assert found == [spec(1), spec(2), spec(3)]
    assert made.origins == {"b1": "static", "b2": "dns", "b3": "file"}


def test_whoever_was_second_is_in_when_the_first_has_gone() -> None:
    made, second = Union(), BackendSpec("b1", "10.0.0.9", 9009)
    assert made.of((), [("dns", specs(1)), ("file", (second,))]) == [spec(1)]
    assert made.of((), [("dns", ()), ("file", (second,))]) == [second]
    assert made.origins == {"b1": "file"}


def test_who_goes_over_to_another_source_stays_in() -> None:
    made = Union()
    made.of((), [("dns", specs(1, 2)), ("file", specs(3))])
    both = specs(1, 2)
    assert made.of((), [("dns", both[:1]), ("file", (*specs(3), both[1]))]) == [spec(1), spec(3), spec(2)]
    assert made.origins == {"b1": "dns", "b3": "file", "b2": "file"}


def test_sources_that_are_others_than_before() -> None:
    made = Union()
    made.of(specs(1), [("dns", specs(2))])
    assert made.of((), [("file", specs(2)), ("dns", specs(3))]) == [spec(2), spec(3)]
    assert made.origins == {"b2": "file", "b3": "dns"}


@given(st.lists(SETS, max_size=12))
def test_any_series_of_sets_gives_what_each_gives_alone(
    series: list[tuple[tuple[BackendSpec, ...], ...]],
) -> None:
    made = Union()
    for static, *others in series:
        named = list(zip(("dns", "file"), others, strict=True))
        afresh = Union()
        assert made.of(static, named) == afresh.of(static, named) == union(static, named)
        assert made.origins == afresh.origins
        found = made.of(static, named)
        assert len({each.id for each in found}) == len({each.address for each in found}) == len(found)
