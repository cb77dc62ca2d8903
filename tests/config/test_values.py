"""The small languages: read, written back, and refused."""

import math
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.config.values import (
    Address,
    StatusSet,
    format_duration,
    format_percentage,
    format_size,
    parse_address,
    parse_bind,
    parse_duration,
    parse_host,
    parse_host_pattern,
    parse_network,
    parse_percentage,
    parse_size,
    parse_statuses,
)

DURATIONS = {"250ms": 0.25, "3ms": 0.003, "5s": 5, "1.5s": 1.5, "1m": 60, "90s": 90, "1h": 3600, "0s": 0}


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_duration(text, seconds):
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("5", "5s"),
        ("5 s", "5s"),
        ("5S", "5s"),
        ("5sec", "5s"),
        ("2 minutes", "2m"),
        ("1hr", "1h"),
        ("10MSEC", "10ms"),
        ("", None),
        ("fast", None),
        ("-5s", None),
        ("1m30s", None),
        (".5s", None),
        ("5d", None),
        ("1e3s", None),
        ("inf", None),
        ("٣s", None),  # an Arabic digit is no digit here
    ],
)
def test_no_duration(text, better):
    with pytest.raises(ValueError, match="must be a duration such as 250ms, 5s or 1m, not ") as caught:
        parse_duration(text)
    assert (f"(did you mean {better}?)" in str(caught.value)) == (better is not None)


@given(st.floats(min_value=0, max_value=1e9))
def test_every_duration_survives_being_written(seconds):
    # Fifteen digits behind the point are read; what is smaller than that is no duration anybody means.
    seconds = math.floor(seconds * 1e6) / 1e6
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h"]))
def test_every_written_duration_survives_being_read(amount, unit):
    seconds = parse_duration(f"{amount}{unit}")
    assert parse_duration(format_duration(seconds)) == seconds


def test_forever_is_off():
    assert format_duration(math.inf) == "off"


SIZES = {"64KiB": 65536, "1MiB": 2**20, "2GiB": 2**31, "8193": 8193, "0": 0, "512": 512}


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_size(text, size):
    assert parse_size(text) == size
    assert format_size(size) == text


def test_bytes_may_be_named():
    assert parse_size("512B") == 512


@pytest.mark.parametrize(
    ("text", "better"),
    [("64K", "64KiB"), ("64kb", "64KiB"), ("1M", "1MiB"), ("1 mib", "1MiB"), ("2g", "2GiB"), ("5bytes", "5B")]
    + [(text, None) for text in ("", "x", "-1", "1.5.2", "010", "1TiB")],
)
def test_no_size(text, better):
    with pytest.raises(ValueError, match="must be a size such as 64KiB") as caught:
        parse_size(text)
    assert (f"(did you mean {better}?)" in str(caught.value)) == (better is not None)


@given(st.integers(0, 2**50))
def test_every_size_survives_being_written(size):
    assert parse_size(format_size(size)) == size


PERCENTAGES = {"0%": 0, "20%": 0.2, "29%": 0.29, "100%": 1, "12.5%": 0.125, "0.000001%": 1e-8}


@pytest.mark.parametrize(("text", "share"), PERCENTAGES.items())
def test_percentage(text, share):
    assert parse_percentage(text) == share
    assert format_percentage(share) == text


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("0.2", "20%"),
        ("0.005", "0.5%"),
        ("0", "0%"),
        ("20", "20%"),
        ("100", "100%"),
        ("20 %", "20%"),
        ("20percent", "20%"),
        ("7 Percent", "7%"),
        ("1", None),  # of one, or of a hundred?
        ("1.0", None),
        ("101", None),
        ("", None),
        ("-5%", None),
        (".5%", None),
        ("5%%", None),
        ("half", None),
        ("٣%", None),
    ],
)
def test_no_percentage(text, better):
    with pytest.raises(ValueError, match="must be a percentage such as 20%, not ") as caught:
        parse_percentage(text)
    assert (f"(did you mean {better}?)" in str(caught.value)) == (better is not None)


@pytest.mark.parametrize("text", ["101%", "100.000001%", "999%"])
def test_no_more_than_all(text):
    with pytest.raises(ValueError, match=f"must be a percentage from 0% to 100%, not '{text}'"):
        parse_percentage(text)


@given(st.integers(0, 100 * 10**6))
def test_every_percentage_survives_being_written(millionths):
    share = parse_percentage(f"{millionths // 10**6}.{millionths % 10**6:06d}%")
    assert parse_percentage(format_percentage(share)) == share


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::]:8080", "::", 8080),
        ("[0:0::1]:1", "::1", 1),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
        ("localhost:0", "localhost", 0),
        ("Greeter.Default.SVC:65535", "greeter.default.svc", 65535),
        ("my_service:80", "my_service", 80),
        ("example.org.:80", "example.org.", 80),
        ("3com.example:80", "3com.example", 80),
    ],
)
def test_address(text, host, port):
    address = parse_address(text)
    assert (address.host, address.port) == (host, port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8080", "must be host:port, not a port alone (did you mean 127.0.0.1:8080?)"),
        (":8080", "has no host (did you mean 127.0.0.1:8080?)"),
        ("*:8080", "has no host (did you mean 127.0.0.1:8080?)"),
        ("localhost", "must be host:port, as in 127.0.0.1:8080, not 'localhost'"),
        ("", "must be host:port, as in 127.0.0.1:8080, not ''"),
        ("localhost:", "must end in a port from 0 to 65535, not ''"),
        ("localhost:65536", "must end in a port from 0 to 65535, not '65536'"),
        ("localhost:http", "must end in a port from 0 to 65535, not 'http'"),
        ("localhost:080", "must end in a port from 0 to 65535, not '080'"),
        ("localhost:-1", "must end in a port from 0 to 65535, not '-1'"),
        ("::1:8080", "must have an IPv6 address in brackets, as in [::1]:8080, not '::1:8080'"),
        ("[::1]", "must be host:port, as in 127.0.0.1:8080, not '[::1]'"),
        ("[::g]:80", "must have an IPv6 address in the brackets, not '::g'"),
        ("[127.0.0.1]:80", "must have an IPv6 address in the brackets, not '127.0.0.1'"),
        ("22:22", "must have an IPv4 address such as 127.0.0.1, not '22'"),
        ("127.1:80", "must have an IPv4 address such as 127.0.0.1, not '127.1'"),
        ("300.0.0.1:80", "must have an IPv4 address such as 127.0.0.1, not '300.0.0.1'"),
        ("127.0.0.01:80", "must have an IPv4 address such as 127.0.0.1, not '127.0.0.01'"),
        ("0x7f000001:80", "must have an IPv4 address such as 127.0.0.1, not '0x7f000001'"),
        ("a b:80", "must have a host name or an IP address, not 'a b'"),
        ("-a:80", "must have a host name or an IP address, not '-a'"),
        ("a..b:80", "must have a host name or an IP address, not 'a..b'"),
        ("größe:80", "must have a host name or an IP address, not 'größe'"),
        (
            "http://127.0.0.1:9001/x",
            "must be host:port alone, without 'http://' (did you mean 127.0.0.1:9001?)",
        ),
        ("https://example.org", "must be host:port alone, without 'https://'"),
        ("unix:/run/lb.sock", "must be host:port: a unix socket can't stand here"),
    ],
)
def test_no_address(text, message):
    with pytest.raises(ValueError) as caught:
        parse_address(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("path", ["/run/lb.sock", "/a b", "/ä", "/" + "x" * 106, "/" + "ä" * 53])
def test_unix_socket(path):
    address = parse_bind(f"unix:{path}")
    assert address == Address("", 0, path)
    assert str(address) == f"unix:{path}"
    assert address.is_loopback


def test_a_bind_may_be_host_and_port_as_well():
    assert parse_bind("[::]:8080") == Address("::", 8080)
    assert parse_bind("unix:8080") == Address("unix", 8080)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unix:", "must have an absolute path, as in unix:/run/lb.sock, not ''"),
        ("unix:lb.sock", "must have an absolute path, as in unix:/run/lb.sock, not 'lb.sock'"),
        ("unix:@lb", "must have an absolute path, as in unix:/run/lb.sock, not '@lb'"),
        ("unix:/", "must have the path of a file, as in unix:/run/lb.sock, not '/'"),
        ("unix:/run/", "must have the path of a file, as in unix:/run/lb.sock, not '/run/'"),
        ("unix:/a\0b", "must have the path of a file, as in unix:/run/lb.sock, not '/a\\x00b'"),
        ("unix:/\ud800", "must have the path of a file, as in unix:/run/lb.sock, not '/\\ud800'"),
        (f"unix:/{'x' * 107}", "has a path of 108 bytes, but a unix socket's can have 107"),
        (f"unix:/{'ä' * 54}", "has a path of 109 bytes, but a unix socket's can have 107"),
        ("unix:///run/a", "must be unix: and a path, without // (did you mean unix:/run/a?)"),
        ("unix://a", "must be unix: and a path, without //"),
        (
            "/run/a",
            "must be host:port or unix: and a path, not a path alone (did you mean unix:/run/a?)",
        ),
        ("8080", "must be host:port, not a port alone (did you mean 0.0.0.0:8080?)"),
    ],
)
def test_no_bind(text, message):
    with pytest.raises(ValueError) as caught:
        parse_bind(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *[("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True)],
        *[("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False)],
    ],
)
def test_loopback(host, loopback):
    assert Address(host, 1).is_loopback is loopback


def test_hosts_have_bounds():
    assert parse_host("a" * 63) == "a" * 63
    for text in ("a" * 64, "a." * 127 + "a", ""):
        with pytest.raises(ValueError, match="host name"):
            parse_host(text)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("API.example.com", "api.example.com"),
        ("api.example.com.", "api.example.com"),
        ("*.Example.org", "*.example.org"),
        ("*.org", "*.org"),
        ("[0::1]", "[::1]"),
        ("10.0.0.1", "10.0.0.1"),
        ("on", "on"),
    ],
)
def test_host_pattern(text, pattern):
    assert parse_host_pattern(text) == pattern


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("*", "must be a host name: leave hosts out to match every host"),
        ("a.*", "can have a * only as its whole first part, as in *.example.org, not 'a.*'"),
        (
            "*a.example.org",
            "can have a * only as its whole first part, as in *.example.org, not '*a.example.org'",
        ),
        ("*.*.org", "can have a * only as its whole first part, as in *.example.org, not '*.*.org'"),
        ("*.10.0.0.1", "can have a * only before a host name, not '*.10.0.0.1'"),
        ("a:80", "must be a host without a port, not 'a:80' (did you mean a?)"),
        ("[::1]:80", "must be a host without a port, not '[::1]:80' (did you mean [::1]?)"),
        ("::1", "must have an IPv6 address in brackets, as in [::1], not '::1'"),
        ("a/b", "must be a host name alone, not 'a/b'"),
        ("", "must have a host name or an IP address, not ''"),
        ("*.", "must have a host name or an IP address, not ''"),
    ],
)
def test_no_host_pattern(text, message):
    with pytest.raises(ValueError) as caught:
        parse_host_pattern(text)
    assert str(caught.value) == message


def test_network():
    assert parse_network("10.0.0.0/8") == ip_network("10.0.0.0/8")
    assert parse_network("2001:db8::/32") == ip_network("2001:db8::/32")
    assert parse_network("10.0.0.1") == ip_network("10.0.0.1/32")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.1.2.3/8", "must be a network, but bits behind its mask are set (did you mean 10.0.0.0/8?)"),
        ("::1/64", "must be a network, but bits behind its mask are set (did you mean ::/64?)"),
        ("10.0.0.0/33", "must be a network such as 10.0.0.0/8 or an IP address, not '10.0.0.0/33'"),
        ("all", "must be a network such as 10.0.0.0/8 or an IP address, not 'all'"),
    ],
)
def test_no_network(text, message):
    with pytest.raises(ValueError) as caught:
        parse_network(text)
    assert str(caught.value) == message


def test_statuses():
    statuses = parse_statuses("200, 204,300-399")
    assert str(statuses) == "200,204,300-399"
    assert [status for status in range(100, 600) if status in statuses] == [200, 204, *range(300, 400)]
    assert "200" not in statuses
    assert statuses.members == {200, 204, *range(300, 400)}
    assert (str(StatusSet()), StatusSet().members) == ("off", frozenset())


@pytest.mark.parametrize(
    "text", ["502-504", "502,503,504", "504,502-503", "502-504,503", "502-503,503-504", "502-504,502"]
)
def test_equal_sets_of_statuses_are_equal(text):
    assert parse_statuses(text) == parse_statuses("502-504")
    assert str(parse_statuses(text)) == "502-504"


@pytest.mark.parametrize(
    "text", ["", "200-", "399-200", "99", "600", "2xx", "200,", "200;204", "200-300-400"]
)
def test_no_statuses(text):
    with pytest.raises(ValueError, match="must be statuses such as 200-399 or 200,204,300-399, not "):
        parse_statuses(text)
