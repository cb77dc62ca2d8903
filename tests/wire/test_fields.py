"""The law of header fields: what is judged, on bytes, and what passes."""

from __future__ import annotations

import pytest

from lb.wire import fields
from lb.wire.fields import (
    Rules,
    connection_options,
    content_length,
    members,
    request_rules,
    response_rules,
    valid_host,
    valid_trailer,
    without,
)

KELVIN = "\N{KELVIN SIGN}".encode()  # str.lower() makes a k of it

GOOD_HOSTS = [
    b"a",
    b"shop.test",
    b"SHOP.test.",
    b"shop.test:80",
    b"shop.test:",
    b"shop.test:0",
    b"shop.test:65535",
    b"127.0.0.1:8080",
    b"[::1]",
    b"[::1]:",
    b"[2001:DB8::1]:443",
    b"[::ffff:10.0.0.1]",
    b"xn--bcher-kva.test",
    b"under_score.test",
    b"a~b!c$d&e'f(g)h*i+j;k=l",
    b"%41.test",
]
BAD_HOSTS = [
    b"",
    b":",
    b":80",
    b"a:65536",
    b"a:99999",
    b"a:123456",
    b"a:8a",
    b"a:+8",
    b"a:-8",
    b"a:8_0",
    b"a: 80",
    b"a:80:80",
    b"a:\xb2",
    b"::1",
    b"[::1",
    b"::1]",
    b"[]",
    b"[::1]80",
    b"[::1]:65536",
    b"[:::1]",
    b"[1.2.3.4]",
    b"[fe80::1%25eth0]",
    b"[fe80::1%eth0]",
    b"[v1.a]",
    b"[g::1]",
    b"user@a",
    b"a/b",
    b"a?b",
    b"a#b",
    b"a\\b",
    b"a b",
    b" a",
    b"a ",
    b"a\t",
    b"a\n",
    b"a\r\n",
    b"a\x00",
    b"a\x7f",
    b"\xe9.test",
    b"<a>",
    b'"a"',
    b"%4",
    b"%zz",
    b"%",
    b"a" * 300,
]


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_a_host_that_is_one(host: bytes) -> None:
    assert [valid_host(host), valid_host(host)] == [True, True]  # the second time it is remembered


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_host_that_is_none(host: bytes) -> None:
    assert [valid_host(host), valid_host(host)] == [False, False]


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (b"0", True),
        (b"1234567890", True),
        (b"007", True),
        (b"9" * 18, True),
        (b"9" * 19, False),
        (b"9" * 5000, False),
        (b"", False),
        (b"+5", False),
        (b"-5", False),
        (b"1_0", False),
        (b" 5", False),
        (b"5 ", False),
        (b"5\n", False),
        (b"\x0b5", False),
        (b"5\x1c", False),
        (b"5\x85", False),
        (b"\xa05", False),
        (b"\xb2", False),
        ("²".encode(), False),
        ("٥".encode(), False),
        ("５".encode(), False),
        (b"0x5", False),
        (b"5.0", False),
        (b"5e3", False),
        (b"5,5", False),
    ],
)
def test_a_length_is_digits(value: bytes, good: bool) -> None:
    assert bool(content_length(value)) is good


@pytest.mark.parametrize(
    ("value", "keep", "names"),
    [
        (b"", None, ()),
        (b"close", False, ()),
        (b"Close", False, ()),
        (b"keep-alive", True, ()),
        (b"Keep-Alive", True, ()),
        (b"keep-alive, close", False, ()),
        (b"close,keep-alive", False, ()),
        (b"Upgrade", None, (b"upgrade",)),
        (b"close, X-A ,\tx-b", False, (b"x-a", b"x-b")),
        (b" , ,close,, ", False, ()),
        (b"closed", None, (b"closed",)),
        (b"not close", None, (b"not close",)),
        (b"\xa0close", None, (b"\xa0close",)),
        (b"close\x0b", None, (b"close\x0b",)),
        (KELVIN + b"eep-alive", None, (KELVIN + b"eep-alive",)),
    ],
)
def test_what_a_connection_field_says(value: bytes, keep: bool | None, names: tuple[bytes, ...]) -> None:
    assert connection_options(value) == (keep, names)
    assert connection_options(value) == (keep, names)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b" A ,b\t,,C c,", [b"a", b"b", b"c c"]),
        (b"a\xa0,\x0bb", [b"a\xa0", b"\x0bb"]),
    ],
)
def test_members_of_a_list(value: bytes, found: list[bytes]) -> None:
    assert members(value) == found


def test_named_fields_go_but_not_the_framing() -> None:
    lines = [
        b"X-A: 1",
        b"x-a: 2",
        b"X-AB: 3",
        b"Host: a",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
    ]
    names = [b"x-a", b"host", b"content-length", b"transfer-encoding"]
    assert without(lines, names) == lines[2:]


def rule_of(rules: Rules, name: bytes) -> int:
    """The rule for a field of this name."""
    line = name + b":  value "
    found = rules.judge(line)
    assert rules.judged.get(line) in (None, found), "remembered as something else"
    return found.rule


class TestRules:
    @pytest.mark.parametrize(
        ("name", "rule"),
        [
            (b"Host", fields.HOST),
            (b"HOST", fields.HOST),
            (b"Content-Length", fields.LENGTH),
            (b"transfer-encoding", fields.CODING),
            (b"Connection", fields.CONNECTION),
            (b"Expect", fields.EXPECT),
            (b"Via", fields.VIA),
            (b"X-Request-ID", fields.ID),
            (b"x-request-id", fields.ID),
            (b"X-Forwarded-For", fields.FORWARDED_FOR),
            (b"Upgrade", fields.UPGRADE),
            (b"TE", fields.TE),
            (b"Keep-Alive", fields.DROP),
            (b"Proxy", fields.DROP),
            (b"Accept", fields.PASS),
            (b"Cookie", fields.PASS),
            (b"X-Forwarded-Port", fields.FORWARDED_MORE),
            (b"X-Forwarded-Prefix", fields.FORWARDED_MORE),
            (b"X_Forwarded_Prefix", fields.DROP),
            (b"X-Forwarded_Port", fields.DROP),
            (b"X_Real_IP", fields.DROP),
            (b"X-Real-IP", fields.FORWARDED_MORE),
            (b"X-Forward", fields.PASS),
            (b"", fields.PASS),
        ],
    )
    def test_of_requests(self, name: bytes, rule: int) -> None:
        rules = request_rules()
        assert [rule_of(rules, name), rule_of(rules, name)] == [rule, rule]

    @pytest.mark.parametrize(
        "name",
        [
            b"content_length",
            b"Content_Length",
            b"TRANSFER_ENCODING",
            b"X_Request_ID",
            b"X-Request_ID",
            b"x_forwarded_for",
            b"X_Forwarded-Proto",
            b"X-Forwarded_Host",
            b"keep_alive",
            b"HTTP2_Settings",
            b"X.Forwarded.For",
            b"X!Forwarded~Host",
            b"content.length",
            b"transfer!encoding",
            b"MAX_FORWARDS",
            b"x|request|id",
        ],
    )
    def test_a_spelling_that_a_cgi_reads_as_ours_is_dropped(self, name: bytes) -> None:
        assert rule_of(request_rules(), name) == fields.DROP

    @pytest.mark.parametrize("name", [b"x_mine", b"_", b"__host", b"host_", b"X_Forwarded"])
    def test_other_underscores_pass(self, name: bytes) -> None:
        assert rule_of(request_rules(), name) == fields.PASS

    @pytest.mark.parametrize(
        "name", [KELVIN + b"eep-alive", b"\xa0host", b"host\x0b", b"Content-Length\x00", b"Ho\xf6st"]
    )
    def test_what_only_text_would_take_for_ours_is_not(self, name: bytes) -> None:
        assert rule_of(request_rules(), name) == fields.PASS

    def test_the_field_of_the_id_is_configured(self) -> None:
        rules = request_rules("Request-Id")
        assert rule_of(rules, b"REQUEST-ID") == fields.ID
        assert rule_of(rules, b"request_id") == fields.DROP
        assert rule_of(rules, b"X-Request-ID") == fields.PASS

    def test_of_responses(self) -> None:
        rules = response_rules("X-Request-ID", "X-Backend")
        assert (
            rule_of(rules, b"x-request-id")
            == rule_of(rules, b"X_BACKEND")
            == rule_of(rules, b"Keep-Alive")
            == fields.DROP
        )
        assert rule_of(rules, b"Upgrade") == fields.UPGRADE
        assert rule_of(rules, b"content-length") == fields.LENGTH
        assert (
            rule_of(rules, b"Host") == rule_of(rules, b"Via") == rule_of(rules, b"Set-Cookie") == fields.PASS
        )

    def test_memory_is_bounded_and_the_law_holds_beyond_it(self) -> None:
        rules = request_rules()
        for number in range(MANY):
            assert rule_of(rules, b"User-Agent: %d" % number) == fields.PASS
            assert rule_of(rules, b"x_request_id") == fields.DROP
        assert len(rules.judged) <= rules.LINES
        assert rule_of(rules, b"hOsT") == fields.HOST

    @pytest.mark.parametrize(
        "line",
        [b"Cookie: a=b", b"Authorization: x", b"X-Api-Key: x", b"Set-Cookie: a", b"Accept: " + b"x" * 300],
    )
    def test_what_may_be_secret_or_is_long_is_not_remembered(self, line: bytes) -> None:
        for rules in (request_rules(), response_rules("X-Request-ID")):
            assert rules.judge(line).rule == fields.PASS
            assert not rules.judged


MANY = 20_000


def test_hosts_and_options_are_judged_alike_when_memory_is_full() -> None:
    for number in range(MANY):
        assert valid_host(b"h%d.test" % number)
        assert connection_options(b"x-%d" % number) == (None, (b"x-%d" % number,))
    assert not valid_host(b"a b c")
    assert connection_options(b"x-new, close") == (False, (b"x-new",))


class TestTrailers:
    @pytest.mark.parametrize("line", [b"X: a", b"X:", b"x-sum:\t1 ", b"!#$%&'*+-.^_`|~9: a", b"X: \xe9"])
    def test_one_that_is_valid(self, line: bytes) -> None:
        assert valid_trailer(line)

    @pytest.mark.parametrize(
        "line",
        [b"", b"X", b":", b": a", b"X : a", b" X: a", b"X\t: a", b"X: a\rb", b"X: a\nb", b"X: a\n",
         b"X: \x00", b"X: \x01", b"X: \x7f", b"\xe9: a", b"X Y: a", b"(X): a", b"\x0bX: a"],
    )  # fmt: skip
    def test_one_that_is_not(self, line: bytes) -> None:
        assert not valid_trailer(line)

    @pytest.mark.parametrize(
        "line", [b"X-Sum: 1", b"Digest: a", b"Server-Timing: a", b"ETag: a", b"grpc-status: 0"]
    )
    def test_one_that_passes(self, line: bytes) -> None:
        assert request_rules().trailer_passes(line)
        assert response_rules("X-Request-ID").trailer_passes(line)

    @pytest.mark.parametrize(
        "name",
        [b"Content-Length", b"content_length", b"Transfer-Encoding", b"TRANSFER_ENCODING", b"Host",
         b"Connection", b"Trailer", b"TE", b"Upgrade", b"Expect", b"Authorization", b"Cookie", b"Set-Cookie",
         b"Content-Type", b"Content-Encoding", b"Content-Range", b"Cache-Control", b"Location",
         b"X-Forwarded-For", b"Via", b"Range"],
    )  # fmt: skip
    def test_one_that_may_not(self, name: bytes) -> None:
        assert not request_rules().trailer_passes(name + b": a")
        assert not response_rules("X-Request-ID").trailer_passes(name + b": a")
