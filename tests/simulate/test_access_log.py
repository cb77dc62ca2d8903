"""Logs are read as they are commonly written, and what is no request is counted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.simulate.access_log import NGINX_FORMATS, Told, WrongFormat, entries, reader_for
from tests.simulate.logs import START, line, reading

NGINX = {
    "remote_addr": "203.0.113.9",
    "remote_user": "-",
    "time_local": "09/Oct/2025:08:53:20 +0000",
    "request": "GET /a?b=c HTTP/1.1",
    "status": "200",
    "body_bytes_sent": "612",
    "http_referer": "-",
    "http_user_agent": "Mozilla/5.0 (X11; \\x22odd\\x22) x 1.5",
    "http_x_forwarded_for": "-",
    "request_time": "0.300",
    "upstream_response_time": "0.250",
    "upstream_connect_time": "0.001",
    "upstream_header_time": "0.240",
    "upstream_response_length": "612",
    "upstream_cache_status": "-",
    "upstream_status": "200",
    "upstream_addr": "10.0.0.7:9001",
    "msec": "1760000000.000",
    "time_iso8601": "2025-10-09T08:53:20+00:00",
}


def nginx_line(format_: str, **values: str) -> str:
    written = format_
    for name, value in sorted((NGINX | values).items(), key=lambda pair: -len(pair[0])):
        written = written.replace(f"${name}", value)
    return written


# --- ours ---


def test_our_own_line() -> None:
    (entry,) = reading([line(1.5, duration_ms=30.0, attempt_ms=20.0)], "json")
    assert entry.at == pytest.approx(START + 1.5)
    assert entry[1:9] == (0.0, 0.02, "a", 200, "", "10.0.0.1", "/", "p")


def test_of_several_attempts_the_last_one_counts_with_the_wait_before_it() -> None:
    (entry,) = reading([line(0.0, attempts=2, duration_ms=50.0, attempt_ms=20.0)], "json")
    assert (entry.waited, entry.took) == pytest.approx((0.03, 0.02))


def test_what_failed() -> None:
    reset, bad, rejected = reading(
        [
            line(0.0, failure="reset", status=502),
            line(0.0, status=503),
            line(0.0, failure="overloaded", status=503, backend=None, attempts=0, attempt_ms=None),
        ],
        "json",
    )
    assert (reset.failure, reset.status) == ("reset", 0)
    assert (bad.failure, bad.status) == ("503", 503)
    assert (rejected.failure, rejected.took, rejected.backend) == ("overloaded", -1.0, "")


def test_who_never_came_to_the_pool_is_left_out() -> None:
    told = Told()
    lines = [
        line(0.0, pool=""),
        line(0.0, failure="rate_limited", status=429, backend=None, attempt_ms=None),
        line(0.0),
    ]
    assert len(list(entries(lines, reader_for("json"), told))) == 1
    assert (told.lines, told.elsewhere, told.malformed) == (3, 2, 0)


# --- nginx ---


@pytest.mark.parametrize("format_", NGINX_FORMATS)
def test_the_usual_formats_of_nginx_are_known(format_: str) -> None:
    (entry,) = reading([nginx_line(format_)], "nginx")
    backend = "10.0.0.7:9001" if "$upstream_addr" in format_ else ""
    assert entry.at == pytest.approx(START + 0.5 - 0.3)  # in the middle of its second
    assert entry[1:8] == (0.0, 0.25, backend, 200, "", "203.0.113.9", "/a?b=c")


@pytest.mark.parametrize(
    ("format_", "at"),
    [
        ("$msec|$request_time|$upstream_addr|$upstream_response_time|$request_uri", START - 0.3),
        ("[$time_iso8601] ${request_time} $upstream_addr", START + 0.5 - 0.3),
        ('{"t": $msec, "urt": "$upstream_response_time", "up": "$upstream_addr"}', START - 0.25),
    ],
)
def test_a_format_of_ones_own(format_: str, at: float) -> None:
    written = nginx_line(format_.replace("${request_time}", "$request_time"), request_uri="/x")
    (entry,) = reading([written], format_)
    assert entry.at == pytest.approx(at)
    assert entry.backend == "10.0.0.7:9001"


def test_several_attempts_of_nginx() -> None:
    two = {"upstream_addr": "10.0.0.7:1, 10.0.0.8:2", "upstream_response_time": "0.100, 0.050"}
    redirect = {"upstream_addr": "10.0.0.7:1 : unix:/run/x.sock", "upstream_response_time": "- : 0.050"}
    first, second = reading([nginx_line(NGINX_FORMATS[0], **each) for each in (two, redirect)], "nginx")
    assert (first.backend, first.waited, first.took) == ("10.0.0.8:2", 0.1, 0.05)
    assert (second.backend, second.waited, second.took) == ("unix:/run/x.sock", 0.0, 0.05)


def test_what_nginx_answers_itself_is_left_out() -> None:
    told = Told()
    own = nginx_line(NGINX_FORMATS[0], upstream_addr="-", upstream_response_time="-")
    assert list(entries([own], reader_for(NGINX_FORMATS[0]), told)) == []
    assert (told.elsewhere, told.malformed) == (1, 0)


def test_a_second_is_spread_evenly_over_those_that_ended_in_it() -> None:
    lines = [nginx_line(NGINX_FORMATS[0], request_time="0.000") for _ in range(4)]
    found = [entry.at - START for entry in reading(lines, "nginx")]
    assert found == pytest.approx([0.125, 0.375, 0.625, 0.875])


@pytest.mark.parametrize(
    ("format_", "words"),
    [
        ("combined", "must be json, nginx, or one with nginx's variables"),
        ("$remote_addr $request_time", "needs $msec, $time_iso8601 or $time_local"),
        ("$msec $status", "needs $request_time or $upstream_response_time"),
    ],
)
def test_a_format_that_says_too_little(format_: str, words: str) -> None:
    with pytest.raises(WrongFormat) as caught:
        reader_for(format_)
    assert words in str(caught.value)


# --- what is no request ---

BROKEN = [
    "garbage",
    "{",
    "[]",
    "null",
    '{"pool": "p", "time": 3}',
    '{"pool": "p", "time": "yesterday", "status": 200}',
    line(0.0, status="OK"),
    line(0.0, status=True),
    line(0.0, attempt_ms=-1),
    line(0.0, attempt_ms=float("nan")),
    line(0.0, duration_ms=float("inf")),
    line(0.0, backend=["a"]),
    "[" * 100_000,
    "x" * 1_000_001,
    line(0.0)[:-20],
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_line_is_counted_and_the_next_one_is_read(text: str) -> None:
    told = Told()
    assert len(list(entries([line(0.0), text, "", line(1.0)], reader_for("json"), told))) == 2
    assert (told.lines, told.malformed) == (3, 1)
    assert told.first.startswith("line 2: ")
    assert len(told.first) < 150


@given(st.text(max_size=80), st.sampled_from(["json", "nginx", "$msec $request_time"]))
def test_any_text_is_a_request_or_counted(text: str, format_: str) -> None:
    told = Told()
    found = list(entries([text], reader_for(format_), told))
    assert len(found) + told.malformed + told.elsewhere == told.lines


@given(
    st.dictionaries(
        st.sampled_from(list(json.loads(line(0.0)))),
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.none())
        ),
    )
)
def test_any_value_is_a_request_or_counted(fields: dict[str, object]) -> None:
    told = Told()
    for entry in entries([line(0.0, **fields)], reader_for("json"), told):
        assert 0 <= entry.waited < 1e13
        assert entry.status == 0 or 100 <= entry.status <= 999
    assert told.lines == 1
