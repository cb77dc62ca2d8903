"""The PROXY protocol, written."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.wire.proxy_header import local_header, proxy_header

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


@pytest.mark.parametrize(
    ("source", "destination", "line"),
    [
        (("192.0.2.1", 1234), ("198.51.100.2", 443), b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n"),
        (("2001:db8::1", 65535), ("::1", 0), b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n"),
        (("fe80::1%eth0", 1), ("fe80::2%eth0", 2), b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"),
        (("::ffff:192.0.2.1", 1), ("::ffff:192.0.2.2", 2), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
        (("unix:", 0), ("", 0), b"PROXY UNKNOWN\r\n"),
        (("192.0.2.1", 1), ("", 0), b"PROXY UNKNOWN\r\n"),
    ],
)
def test_a_line(source: tuple[str, int], destination: tuple[str, int], line: bytes) -> None:
    assert proxy_header(1, source, destination) == line


@pytest.mark.parametrize(
    ("source", "destination", "rest"),
    [
        (("192.0.2.1", 258), ("198.51.100.2", 443), "21 11 000c c0000201 c6336402 0102 01bb"),
        (
            ("2001:db8::1", 1),
            ("::1", 2),
            "21 21 0024 20010db8000000000000000000000001 00000000000000000000000000000001 0001 0002",
        ),
        (
            ("192.0.2.1", 1),
            ("::1", 2),
            "21 21 0024 00000000000000000000ffffc0000201 00000000000000000000000000000001 0001 0002",
        ),
        (("unix:", 0), ("", 0), "21 00 0000"),
    ],
)
def test_in_binary(source: tuple[str, int], destination: tuple[str, int], rest: str) -> None:
    assert proxy_header(2, source, destination) == SIGNATURE + bytes.fromhex(rest)


def test_our_own() -> None:
    assert local_header(1) == b"PROXY UNKNOWN\r\n"
    assert local_header(2) == SIGNATURE + b"\x20\x00\x00\x00"


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
ends = st.tuples(addresses, st.integers(0, 65535))


@given(ends, ends)
def test_any_two_ends(source: tuple[str, int], destination: tuple[str, int]) -> None:
    line = proxy_header(1, source, destination)
    assert len(line) <= 107  # section 2.1
    words = line.decode().removesuffix("\r\n").split(" ")
    assert {ip_address(each).version for each in words[2:4]} == {4 if words[1] == "TCP4" else 6}
    assert (int(words[4]), int(words[5])) == (source[1], destination[1])
    binary = proxy_header(2, source, destination)
    assert len(binary) == 16 + int.from_bytes(binary[14:16], "big")
