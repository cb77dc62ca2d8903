"""What is different in a set of backends from the one before it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.backend import Backend, BackendSpec
from lb.core.turnover import difference

POOL = [
    BackendSpec(f"b{name}", f"10.0.0.{place}", 9000, weight)
    for name in range(4)
    for place in (1, 2)
    for weight in (1, 2)
]
SETS = st.lists(st.sampled_from(POOL), unique_by=lambda spec: spec.id)


def test_an_id_that_comes_twice_is_named() -> None:
    with pytest.raises(ValueError, match="two backends have the same ID: b2"):
        difference({}, [BackendSpec("b1", "h", 1), BackendSpec("b2", "h", 2), BackendSpec("b2", "h", 3)])


@given(SETS, SETS, st.booleans())
def test_everyone_is_in_one_part(before: list[BackendSpec], after: list[BackendSpec], copied: bool) -> None:
    backends = {spec.id: Backend(spec) for spec in before}
    if copied:  # a source that makes its specs anew each time
        after = [replace(spec) for spec in after]
    joined, left, renewed = difference(backends, after)
    stay = [
        spec for spec in after
        if spec.id in backends and backends[spec.id].spec.address == spec.address
    ]  # fmt: skip
    assert joined == [spec for spec in after if spec not in stay]
    assert {each.id for each in left} == backends.keys() - {spec.id for spec in stay}
    assert [spec for _, spec in renewed] == [spec for spec in stay if spec is not backends[spec.id].spec]
    assert all(backend is backends[spec.id] for backend, spec in renewed)
