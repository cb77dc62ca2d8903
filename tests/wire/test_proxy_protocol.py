"""Headers of the PROXY protocol, made here by hand as the specification has them."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lb.wire.proxy_protocol import LONGEST_V2, SIGNATURE, Malformed, ProxyHeader, crc32c, read_header

V4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 56324, 443)
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 56324, 443)
)


def v2(rest: bytes, family: int = 0x11, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes((command, family)) + struct.pack("!H", len(rest)) + rest


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def checked(rest: bytes) -> bytes:
    """With a checksum as its last extension."""
    blank = v2(rest + tlv(3, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank))


GOOD = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", "192.0.2.7", 56324, False),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255", 65535, False),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 0 0\r\n", "192.0.2.7", 0, False),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", "2001:db8::7", 56324, False),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 1 2\r\n", "192.0.2.7", 1, False),
    (
        b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
        b"65535 65535\r\n",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        65535,
        False,
    ),
    (b"PROXY UNKNOWN\r\n", "", 0, False),
    (
        b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
        b"65535 65535\r\n",
        "",
        0,
        False,
    ),
    (v2(V4), "192.0.2.7", 56324, False),
    (v2(V6, 0x21), "2001:db8::7", 56324, False),
    (v2(b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0"), 0x31), "unix:", 0, False),
    (v2(b"", 0x00), "", 0, False),
    (v2(V4, 0x12), "", 0, False),  # a datagram's sender can't have sent this
    (v2(V4, command=0x20), "", 0, False),  # LOCAL: a health check
    (v2(b"anything at all", 0xFF, command=0x20), "", 0, False),
    (v2(V4 + tlv(0x04, b"") + tlv(0x05, b"unique") + tlv(0xEA, b"x" * 300)), "192.0.2.7", 56324, False),
    (v2(V4 + tlv(0x20, b"\x01" + bytes(4) + tlv(0x21, b"TLSv1.3"))), "192.0.2.7", 56324, True),
    (v2(V4 + tlv(0x20, b"\x00" + bytes(4))), "192.0.2.7", 56324, False),
    (checked(V4), "192.0.2.7", 56324, False),
    (checked(V4 + tlv(0x02, b"a.example")), "192.0.2.7", 56324, False),
]

BAD = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01",
    b"proxy TCP4",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n",
    b"PROXY tcp4 192.0.2.7 198.51.100.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
    b"PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n",
    b"PROXY TCP4\t192.0.2.7 198.51.100.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1_0 2\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 \xb2 2\r\n",
    b"PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n",
    b"PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 nowhere 1 2\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
    b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
    b"PROXY UNKNOWNTCP4 192.0.2.7 198.51.100.1 1 2\r\n",
    b"PROXY UNKNOWN " + b"x" * 200,
    SIGNATURE + b"\x11\x11\x00\x0c" + V4,
    SIGNATURE + b"\x22\x11\x00\x0c" + V4,
    v2(V4, 0x41),
    v2(V4, 0x13),
    v2(V4[:-1]),
    v2(V4, 0x21),
    v2(V4, 0x31),
    v2(V4 + b"\x04\x00"),
    v2(V4 + b"\x04\x00\x09abc"),
    v2(V4 + tlv(0x03, bytes(4))),
    v2(V4 + tlv(0x03, bytes(3))),
    v2(V4 + tlv(0x20, bytes(4))),
    SIGNATURE + b"\x21\x11" + struct.pack("!H", LONGEST_V2),
    SIGNATURE[:-1] + b"\r",
]


@pytest.mark.parametrize(("header", "source", "port", "tls"), GOOD)
def test_a_header_is_read_whatever_follows(header: bytes, source: str, port: int, tls: bool) -> None:
    for rest in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\r\n", header):
        assert read_header(header + rest) == ProxyHeader(source, port, tls, len(header))


@pytest.mark.parametrize("header", [good[0] for good in GOOD])
def test_every_part_of_a_header_waits_for_the_rest(header: bytes) -> None:
    for stop in range(len(header)):
        assert read_header(header[:stop]) is None


@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header_is_malformed(header: bytes) -> None:
    with pytest.raises(Malformed):
        read_header(header)


@pytest.mark.parametrize("header", BAD)
def test_and_so_it_is_in_pieces_at_the_end_at_the_latest(header: bytes) -> None:
    """No part of it is ever a good header: it waits, or is refused."""
    for stop in range(len(header)):
        try:
            assert read_header(header[:stop]) is None
        except Malformed:
            return


def test_a_second_checksum_is_refused_since_each_costs_time() -> None:
    blank = v2(V4 + tlv(3, bytes(4)) * 2)
    with pytest.raises(Malformed):
        read_header(blank)


def test_the_checksum_is_the_one_of_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_a_changed_byte_breaks_the_checksum() -> None:
    header = checked(V4)
    for place in range(16, len(header) - 7):
        changed = bytearray(header)
        changed[place] ^= 1
        with pytest.raises(Malformed):
            read_header(bytes(changed))


@given(st.binary(max_size=400) | st.binary(max_size=300).map(lambda rest: SIGNATURE + rest))
@example(b"")
@example(SIGNATURE + b"\x21\x11\xff\xff")
def test_any_bytes_are_read_or_awaited_or_refused(data: bytes) -> None:
    try:
        found = read_header(data)
    except Malformed:
        return
    if found is None:
        assert len(data) < LONGEST_V2
    else:
        assert found.size <= len(data)
        assert not found.source or found.source == "unix:" or ipaddress.ip_address(found.source)


PORTS = st.integers(0, 65535)


@given(
    st.data(), PORTS, PORTS, st.lists(st.tuples(st.integers(0x40, 0xFF), st.binary(max_size=40)), max_size=4)
)
def test_both_versions_say_the_same(
    data: st.DataObject, port: int, other_port: int, extensions: list[tuple[int, bytes]]
) -> None:
    version = data.draw(st.sampled_from((4, 6)))
    source, other = data.draw(st.ip_addresses(v=version)), data.draw(st.ip_addresses(v=version))
    line = f"PROXY TCP{version} {source} {other} {port} {other_port}\r\n".encode()
    packed = source.packed + other.packed + struct.pack("!HH", port, other_port)
    binary = v2(packed + b"".join(tlv(*each) for each in extensions), 0x11 if version == 4 else 0x21)
    first, second = read_header(line), read_header(binary)
    assert first is not None
    assert second is not None
    assert (first.source, first.port) == (second.source, second.port)
    assert ipaddress.ip_address(first.source) in (source, getattr(source, "ipv4_mapped", None))
