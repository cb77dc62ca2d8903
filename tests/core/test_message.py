"""Heads as they travel: looking up a path and a header."""

import pytest

from lb.core.message import IDEMPOTENT_METHODS
from tests.core.messages import made_request


@pytest.mark.parametrize(
    ("target", "path"), [(b"/", b"/"), (b"/a?b", b"/a"), (b"/a?b?c", b"/a"), (b"/?", b"/"), (b"*", b"*")]
)
def test_a_path_is_the_target_without_its_query(target: bytes, path: bytes) -> None:
    assert made_request(target).path == path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-one", b"1"),
        (b"x-empty", b""),
        (b"x-many", b"a, b, c"),
        (b"x-none", None),
        (b"host", b"shop.test"),
        (b"get / http/1.1", None),
    ],
)
def test_a_header_is_found_whatever_its_spelling(name: bytes, value: bytes | None) -> None:
    head = made_request(
        b"/", b"X-ONE: 1", b"X-Many: a", b"x-empty:", b"x-many:\tb ", b"X-MANY:c", b"Host: other"
    )
    assert head.header(name) == value


def test_idempotent_methods_are_those_of_the_rfc() -> None:
    assert b"POST" not in IDEMPOTENT_METHODS
    assert b"PATCH" not in IDEMPOTENT_METHODS
    assert {b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"} == IDEMPOTENT_METHODS
