"""The Forwarded field: read from the right, whatever anybody has put on its left, and written."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.identity import Proxies
from lb.wire.forwarded import believed, element, elements_from_right, node, parse_element

PROXIES = Proxies([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"for=192.0.2.43", {b"for": b"192.0.2.43"}),
        (b'For="[2001:db8:cafe::17]:4711"', {b"for": b"[2001:db8:cafe::17]:4711"}),
        (b"for=192.0.2.60;proto=http;by=_a", {b"for": b"192.0.2.60", b"proto": b"http", b"by": b"_a"}),
        (b'for="_gazonk"', {b"for": b"_gazonk"}),
        (b'host="a \\"b\\\\"', {b"host": b'a "b\\'}),
        (b'a="b;c,d"', {b"a": b"b;c,d"}),
        (b'a=""', {b"a": b""}),
        (b"for=192.0.2.43;", {b"for": b"192.0.2.43"}),
        (b" for=192.0.2.43 ; proto=http ", {b"for": b"192.0.2.43", b"proto": b"http"}),
        (b"for=[2001:db8::1]:80", {b"for": b"[2001:db8::1]:80"}),  # seen in the wild
        (b"", None),
        (b"for", None),
        (b"for=", None),
        (b"=a", None),
        (b"for =a", None),
        (b"for= a", None),
        (b'for="a', None),
        (b'for="a"b', None),
        (b'for="a\x00"', None),
        (b'for="a\\', None),
        (b"for=a;for=b", None),
        (b"for=a;FOR=b", None),
        (b"for=a,for=b", None),
        (b"for=a;;proto=b", None),
    ],
)  # fmt: skip
def test_an_element(text: bytes, found: dict[bytes, bytes] | None) -> None:
    assert parse_element(text) == found


@pytest.mark.parametrize(
    ("value", "client", "proto", "host"),
    [
        (b"for=203.0.113.7", "203.0.113.7", b"", b""),
        (b"for=203.0.113.7;proto=HTTPS;host=a.example", "203.0.113.7", b"https", b"a.example"),
        (b'for="[2001:DB8::7]:80"', "2001:db8::7", b"", b""),
        (b'for="203.0.113.7:80", for=10.0.0.2', "203.0.113.7", b"", b""),
        (
            b"for=203.0.113.7;proto=https;host=a, for=10.0.0.2;proto=http;host=b",
            "203.0.113.7",
            b"https",
            b"a",
        ),
        (b"for=6.6.6.6;proto=https, for=203.0.113.7;proto=http", "203.0.113.7", b"http", b""),
        (b"for=203.0.113.7, for=unknown;proto=https", "10.0.0.1", b"https", b""),
        (b"for=203.0.113.7, for=_hidden", "10.0.0.1", b"", b""),
        (b"for=203.0.113.7, proto=https", "10.0.0.1", b"https", b""),
        (b"for=10.0.0.3, for=10.0.0.2", "10.0.0.3", b"", b""),
        (b"garbage", "10.0.0.1", b"", b""),
        (b"", "10.0.0.1", b"", b""),
        (b"for=203.0.113.7,", "10.0.0.1", b"", b""),
        (b'for="::ffff:203.0.113.7"', "203.0.113.7", b"", b""),
        (b'for=203.0.113.7;host="a,b"', "203.0.113.7", b"", b"a,b"),
    ],
)
def test_the_client_is_the_rightmost_that_is_no_proxy_of_ours(
    value: bytes, client: str, proto: bytes, host: bytes
) -> None:
    found = believed("10.0.0.1", value, PROXIES)
    assert (found.client, found.proto, found.host) == (client, proto, host)


@pytest.mark.parametrize(
    "forged",
    [
        b'for="',
        b'for=6.6.6.6;a="',
        b"for=6.6.6.6;",
        b'for=6.6.6.6;a="\\',
        b"for=6.6.6.6,",
        b'", for=6.6.6.6',
        b"\xff\x80\\",
        b"," * 5000,
        b'"' * 5000,
    ],
)
@pytest.mark.parametrize("ours", [b"for=203.0.113.7", b'for="203.0.113.7:80";proto=http;host="a.example:80"'])
def test_what_a_client_puts_before_changes_nothing(forged: bytes, ours: bytes) -> None:
    found = believed("10.0.0.1", forged + b", " + ours, PROXIES)
    assert (found.client, found.proto) == ("203.0.113.7", b"http" if b"proto" in ours else b"")


_hosts = st.text("abc,;=.-:\\\"' 123[]", max_size=30).map(str.encode)


@given(st.binary(max_size=80), _hosts, st.sampled_from(["203.0.113.7", "2001:db8::7"]))
def test_no_client_and_no_host_of_its_own_forges_an_address(forged: bytes, host: bytes, client: str) -> None:
    """What `element` writes of whatever host, behind whatever the client has sent, is what is read."""
    found = believed("10.0.0.1", forged + b", " + element(client, host, b"http"), PROXIES)
    assert (found.client, found.proto, found.host) == (client, b"http", host)


@given(st.binary(max_size=200))
def test_anything_can_come(value: bytes) -> None:
    for each in elements_from_right(value):
        assert each
    believed("10.0.0.1", value, PROXIES)


@given(
    st.dictionaries(
        st.text("abcxyz-_1", min_size=1, max_size=6).map(str.encode),
        st.text([chr(code) for code in (9, *range(32, 127))], max_size=20).map(str.encode),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_quoted_is_read_back(pairs: dict[bytes, bytes]) -> None:
    text = b";".join(
        name + b'="' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
        for name, value in pairs.items()
    )
    assert parse_element(text) == pairs


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("192.0.2.1", b"192.0.2.1"),
        ("2001:db8::1", b'"[2001:db8::1]"'),
        ("unix:", b"unknown"),
        ("unix", b"unknown"),
        ("unknown", b"unknown"),
        ("::1", b'"[::1]"'),
    ],
)
def test_a_node_is_written(address: str, written: bytes) -> None:
    assert node(address) == written


def test_an_element_is_written() -> None:
    assert element("192.0.2.1", b"a.example", b"https") == b"for=192.0.2.1;host=a.example;proto=https"
    assert element("::1", b"a.example:80", b"http") == b'for="[::1]";host="a.example:80";proto=http'
    assert element("192.0.2.1", b"", b"http") == b"for=192.0.2.1;proto=http"
