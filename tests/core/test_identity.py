"""Request IDs, and who really asked."""

from ipaddress import ip_address, ip_network
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.identity import Proxies, RequestIds, client_address, plain_address, well_formed_id

NOW = 1_700_000_000.123  # seconds


class TestRequestIds:
    def test_they_are_version_7(self) -> None:
        new = RequestIds(lambda: NOW).new
        for _ in range(1000):
            text = new().decode()
            uuid = UUID(text)
            assert str(uuid) == text  # lower case, hyphens in their places
            assert uuid.version == 7
            assert uuid.variant == RFC_4122
            assert uuid.int >> 80 == 1_700_000_000_123  # milliseconds

    def test_all_random_bits_are_used(self) -> None:
        new = RequestIds(lambda: NOW).new
        ones, zeros = 0, 0
        for _ in range(200):
            bits = UUID(new().decode()).int
            ones |= bits
            zeros |= ~bits
        changing = ones & zeros & ((1 << 128) - 1)
        random_bits = ((1 << 76) - 1) & ~(0b11 << 62)  # less the version's and the variant's
        random_bits &= ~(0xF << 76)
        assert changing == random_bits

    def test_no_two_are_the_same(self) -> None:
        new = RequestIds(lambda: NOW).new
        assert len({new() for _ in range(200_000)}) == 200_000

    def test_they_sort_by_time(self) -> None:
        now = NOW
        new = RequestIds(lambda: now).new
        ids = []
        for _ in range(3000):
            ids.append(new())
            now += 0.002
        assert ids == sorted(ids)

    def test_time_is_asked_each_time(self) -> None:
        times = iter((1.0, 1.0, 2.5, 0.001, 0.0))
        new = RequestIds(lambda: next(times)).new
        assert [UUID(new().decode()).int >> 80 for _ in range(5)] == [1000, 1000, 2500, 1, 0]

    def test_each_may_be_taken_over_by_the_next_balancer(self) -> None:
        assert well_formed_id(RequestIds(lambda: NOW).new())


@pytest.mark.parametrize(
    "given",
    [
        b"12345678",
        b"a" * 128,
        b"018bcfe5-687b-7abc-8def-0123456789ab",
        b"Root=1-67891233-abcdef012345678912345678",
        b"4bf92f3577b34da6a3ce929d0e0e4736/00f067aa",
        b"dGhpcyBpcyBhbg==",
        b"a._~+/=-Z9",
    ],
)
def test_an_id_that_may_be_taken_over(given: bytes) -> None:
    assert well_formed_id(given)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"1234567", id="too short"),
        pytest.param(b"a" * 129, id="too long"),
        pytest.param(b"12345678\n", id="newline at the end"),
        pytest.param(b"\n12345678", id="newline at the beginning"),
        pytest.param(b"1234\r\n5678", id="a line break within"),
        pytest.param(b"12345678\r", id="carriage return at the end"),
        pytest.param(b"1234 5678", id="space"),
        pytest.param(b" 12345678", id="space at the beginning"),
        pytest.param(b"1234\t5678", id="tab"),
        pytest.param(b"1234\x005678", id="NUL"),
        pytest.param("réquest-id".encode(), id="non-ASCII"),
        pytest.param(b"12345678\xb2", id="superscript in Latin-1"),
        pytest.param("１２３４５６７８".encode(), id="full-width digits"),
        pytest.param(b"-12345678", id="an option of some command"),
        pytest.param(b".../../etc/passwd", id="a path"),
        pytest.param(b"12345678,87654321", id="two of them"),
        pytest.param(b'12345678"}', id="quote"),
        pytest.param(b"<script>alert", id="markup"),
        pytest.param(b"%0d%0aSet-Cookie", id="percent"),
        pytest.param(b"12345678;x", id="semicolon"),
        pytest.param(b"$(reboot)", id="shell"),
    ],
)
def test_an_id_that_may_not(given: bytes) -> None:
    assert not well_formed_id(given)


NETWORKS = [ip_network("10.0.0.0/8"), ip_network("192.168.1.1/32"), ip_network("fd00::/8")]
TRUSTED = Proxies(NETWORKS)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        pytest.param("10.0.0.1", b"", "10.0.0.1", id="nothing is said"),
        pytest.param("10.0.0.1", b"203.0.113.7", "203.0.113.7", id="one proxy"),
        pytest.param("10.0.0.1", b"203.0.113.7, 10.0.0.2", "203.0.113.7", id="two proxies"),
        pytest.param("10.0.0.1", b"203.0.113.7,10.0.0.2,192.168.1.1", "203.0.113.7", id="no spaces"),
        pytest.param("10.0.0.1", b" 203.0.113.7\t , 10.0.0.2 ", "203.0.113.7", id="many spaces"),
        pytest.param("10.0.0.1", b"8.8.8.8, 203.0.113.7, 10.0.0.2", "203.0.113.7", id="forged on the left"),
        pytest.param("10.0.0.1", b"10.9.9.9, 203.0.113.7", "203.0.113.7", id="forged as a proxy"),
        pytest.param("10.0.0.1", b"10.0.0.3, 10.0.0.2", "10.0.0.3", id="only proxies: the farthest"),
        pytest.param("10.0.0.1", b"192.168.1.2, 10.0.0.2", "192.168.1.2", id="beside the trusted network"),
        pytest.param("10.0.0.1", b"garbage", "10.0.0.1", id="garbage"),
        pytest.param("10.0.0.1", b"203.0.113.7, garbage, 10.0.0.2", "10.0.0.2", id="garbage ends the walk"),
        pytest.param("10.0.0.1", b"203.0.113.7,, 10.0.0.2", "10.0.0.2", id="an empty entry ends the walk"),
        pytest.param("10.0.0.1", b"203.0.113.7, ", "10.0.0.1", id="an empty entry at the end"),
        pytest.param("10.0.0.1", b"203.0.113.7:1234", "203.0.113.7", id="a port is no part of an address"),
        pytest.param("10.0.0.1", b"unknown", "10.0.0.1", id="RFC 7239's unknown"),
        pytest.param("10.0.0.1", b"\xff\xfe", "10.0.0.1", id="not even text"),
        pytest.param("10.0.0.1", b"3405803783", "10.0.0.1", id="a number is no address"),
        pytest.param("10.0.0.1", b"010.0.0.1", "10.0.0.1", id="octal is no address"),
        pytest.param("fd00::1", b"2001:DB8:0::7", "2001:db8::7", id="IPv6, written in one way"),
        pytest.param("fd00::1", b"2001:db8::7, fd00::2, 10.0.0.1", "2001:db8::7", id="IPv6 and IPv4 proxies"),
        pytest.param("fd00::1", b"[2001:db8::7]", "2001:db8::7", id="brackets are no part of an address"),
        pytest.param("fd00::1", b"[2001:db8::7]:80", "2001:db8::7", id="nor is a port behind them"),
        pytest.param("fd00::1", b'"[2001:db8::7]:80"', "2001:db8::7", id="nor are quotes"),
        pytest.param("10.0.0.1", b"203.0.113.7:_http", "203.0.113.7", id="a hidden port"),
        pytest.param("10.0.0.1", b"203.0.113.7:", "10.0.0.1", id="a colon, and no port"),
        pytest.param("10.0.0.1", b"203.0.113.7:123456", "10.0.0.1", id="a port of six digits"),
        pytest.param("10.0.0.1", b"[203.0.113.7]", "203.0.113.7", id="IPv4 in brackets"),
        pytest.param("10.0.0.1", b"_hidden, 10.0.0.2", "10.0.0.2", id="RFC 7239's hidden one ends the walk"),
        pytest.param("10.0.0.1", b"8.8.8.8, ::ffff:203.0.113.7", "203.0.113.7", id="IPv4 as IPv6"),
        pytest.param("10.0.0.1", b"203.0.113.7, ::FFFF:10.0.0.2", "203.0.113.7", id="a proxy's, too"),
        pytest.param("10.0.0.1", b"203.0.113.7, ::ffff:a00:2", "203.0.113.7", id="and in hexadecimal"),
        pytest.param("::ffff:10.0.0.1", b"203.0.113.7", "203.0.113.7", id="and the peer's"),
        pytest.param("10.0.0.1", b"203.0.113.7, unix:", "unix", id="a unix socket isn't trusted by itself"),
    ],
)
def test_the_client_is_the_rightmost_that_is_no_proxy_of_ours(
    peer: str, forwarded_for: bytes, client: str
) -> None:
    assert client_address(peer, forwarded_for, TRUSTED) == client


def test_with_nobody_trusted_the_last_entry_counts() -> None:
    assert client_address("10.0.0.1", b"1.1.1.1, 2.2.2.2", Proxies()) == "2.2.2.2"


def test_a_unix_socket_is_one_of_the_proxies_where_it_is_said() -> None:
    local = Proxies(NETWORKS, unix=True)
    assert (local.trusts("unix:"), local.trusts("unix"), TRUSTED.trusts("unix:")) == (True, True, False)
    assert client_address("unix:", b"8.8.8.8, 203.0.113.7, unix:, 10.0.0.2", local) == "203.0.113.7"


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.1.2.3", True),
        ("11.0.0.1", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.0.0.1", False),
        ("fd00::1", True),
        ("fe80::1%eth0", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_whom_to_trust(peer: str, trusted: bool) -> None:
    assert TRUSTED.trusts(peer) == trusted


def test_a_network_of_mapped_addresses_holds_those_who_come_so() -> None:
    assert Proxies([ip_network("::ffff:10.0.0.0/104")]).trusts("::ffff:10.0.0.1")


def test_nobody_is_trusted_by_default() -> None:
    assert not Proxies()
    assert Proxies(unix=True)
    assert Proxies(NETWORKS) == TRUSTED
    assert hash(Proxies(NETWORKS)) == hash(TRUSTED)
    assert Proxies(NETWORKS, unix=True) != TRUSTED


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("::ffff:garbage", "::ffff:garbage"),
        ("2001:db8::1", "2001:db8::1"),
        ("192.0.2.1", "192.0.2.1"),
        ("", ""),
    ],
)
def test_an_address_in_its_plain_form(address: str, plain: str) -> None:
    assert plain_address(address) == plain


@given(
    st.lists(st.sampled_from(["10.0.0.9", "fd00::9", "10.9.9.9:80", "[fd00::1]:8080"])),
    st.binary(max_size=60),
)
def test_whatever_stands_left_of_the_client_nobody_becomes_another(hops: list[str], forged: bytes) -> None:
    entries = b", ".join([forged, b"203.0.113.7", *(each.encode() for each in hops)])
    assert client_address("10.0.0.1", entries, TRUSTED) == "203.0.113.7"


@given(st.binary(max_size=80))
def test_the_client_is_always_an_address_or_the_peer(value: bytes) -> None:
    found = client_address("10.0.0.1", value, TRUSTED)
    assert found in ("10.0.0.1", "unix") or ip_address(found)
