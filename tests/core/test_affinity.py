"""Keys of requests: where they are found, and what isn't one."""

import pytest

from lb.core.affinity import key_reader
from tests.core.messages import made_request

REQUEST = made_request(
    b"/cart/7?user=ann&empty=&user=bob&flag",
    b"X-User:  ann ",
    b"x-empty:",
    b"Cookie: theme=dark; session=s1; session=s2",
    b"COOKIE: late=1;broken; =x",
    b"Accept: a",
    b"accept: b",
    host=b"shop.test",
)


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("client", b"192.0.2.7"),
        ("path", b"/cart/7"),
        ("header:X-User", b"ann"),
        ("header:x-user", b"ann"),
        ("header:accept", b"a, b"),
        ("header:Host", b"shop.test"),
        ("header:x-empty", b""),
        ("header:x-none", b""),
        ("cookie:session", b"s1"),
        ("cookie:theme", b"dark"),
        ("cookie:late", b"1"),
        ("cookie:Session", b""),
        ("cookie:broken", b""),
        ("query:user", b"ann"),
        ("query:empty", b""),
        ("query:flag", b""),
        ("query:us", b""),
    ],
)
def test_a_key_is_read(written: str, key: bytes) -> None:
    assert key_reader(written)(REQUEST, "192.0.2.7") == key


@pytest.mark.parametrize("written", ["cookie:a", "query:a", "header:a"])
def test_a_bare_request_has_none(written: str) -> None:
    assert key_reader(written)(made_request(), "192.0.2.7") == b""


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("", "must be header:NAME, cookie:NAME, client, path or query:NAME, not ''"),
        ("ip", "must be header:NAME, .*, not 'ip'"),
        ("header", "must be header:NAME, .*, not 'header'"),
        ("client:a", "must be header:NAME, .*, not 'client:a'"),
        ("Header:a", "must be header:NAME, .*, not 'Header:a'"),
        ("header:", "must have the name of a header behind header:, not ''"),
        ("header:a b", "must have the name of a header behind header:, not 'a b'"),
        ("cookie:a;b", "must have the name of a cookie behind cookie:, not 'a;b'"),
        ("query:a&b", "must have the name of a query behind query:, not 'a&b'"),
    ],
)
def test_what_is_no_key(written: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        key_reader(written)


def test_a_request_has_no_key_until_it_is_given_one() -> None:
    assert made_request().key == b""
