"""Whatever the admin API is asked: an answer that a client can use, no failure of ours, and nothing
changed but what was asked for."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lb.control.api import MAX_WEIGHT
from tests.e2e.process import Balancer, running

CONFIG = "access_log: off\npools: {greeter: {backends: [{id: a, address: 127.0.0.1:1}, 127.0.0.1:2]}}\n"
BACKEND = "/api/pools/greeter/backends/a"

quick = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def balancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    with running(tmp_path_factory.mktemp("balancer"), CONFIG) as balancer:
        yield balancer


def asked(
    balancer: Balancer, method: str, path: str, body: bytes | None = None, **fields: str
) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    connection = http.client.HTTPConnection(balancer.admin.removeprefix("http://"), timeout=10)
    try:
        connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in fields.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.headers.get_content_type(), answer.read()
    finally:
        connection.close()


weights = (
    st.integers() | st.integers(0, MAX_WEIGHT) | st.floats() | st.booleans() | st.none() | st.text(max_size=5)
)
states = (
    st.sampled_from(["active", "draining", "disabled", "Active", "", "eligible"]) | st.none() | st.integers()
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
changes = (
    st.fixed_dictionaries({}, optional={"weight": weights, "state": states})
    | st.dictionaries(st.sampled_from(["weight", "state", "tier", "id", "Weight"]), anything, max_size=3)
    | anything
)


def shown(balancer: Balancer) -> dict[str, Any]:
    return dict(balancer.api("/api/pools/greeter")["backends"][0])


def is_right(body: Any) -> bool:
    """Whether it is a change that may be made."""
    if not isinstance(body, dict) or not body or not body.keys() <= {"weight", "state"}:
        return False
    weight, wanted = body.get("weight", 0), body.get("state", "active")
    return (
        type(weight) is int
        and 0 <= weight <= MAX_WEIGHT
        and isinstance(wanted, str)
        and wanted in ("active", "draining", "disabled")
    )


@quick
@given(changes)
def test_a_change_is_made_or_refused_as_a_whole(balancer: Balancer, body: Any) -> None:
    before = shown(balancer)
    data = json.dumps(body).encode()
    status, kind, answer = asked(balancer, "PATCH", BACKEND, data, Content_Type="application/json")
    after = shown(balancer)
    assert kind == "application/json"
    told = json.loads(answer)
    if is_right(body):
        assert (status, told["weight"], told["state"]) == (200, after["weight"], after["state"])
        wanted = {"weight": before["weight"], "state": before["state"], **body}
        assert {name: after[name] for name in ("weight", "state")} == wanted
    else:
        assert status == 400
        assert told["error"]
        assert after == before


@quick
@given(
    st.binary(max_size=64)
    | st.sampled_from([b"{", b'{"weight":1e999}', b"\xef\xbb\xbf{}", b'{"weight": 01}'])
)
def test_any_bytes_as_a_change(balancer: Balancer, data: bytes) -> None:
    before = shown(balancer)
    status, kind, _ = asked(balancer, "PATCH", BACKEND, data, Content_Type="application/json")
    try:
        right = is_right(json.loads(data))
    except ValueError:
        right = False
    assert (status, kind) == (200 if right else 400, "application/json")
    if not right:
        assert shown(balancer) == before


WORDS = ["api", "pools", "greeter", "backends", "a", "requests", "config", "reload", "metrics", "readyz"]
ODD = ["..", ".", "", "%2e%2e", "%2f", "%00", "%ff", "%", "{pool}", "*"]
segments = st.sampled_from([*WORDS, *ODD]) | st.text(max_size=6).map(
    lambda text: quote(text, safe="", errors="surrogatepass")
)
queries = st.dictionaries(
    st.sampled_from(["backend", "status", "failure", "min_duration", "limit", "x"]),
    st.text(max_size=8) | st.integers().map(str) | st.sampled_from(["5xx", "1h", "9" * 400, "a", "timeout"]),
    max_size=3,
)


@quick
@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]),
    st.lists(segments, max_size=6),
    queries,
    st.dictionaries(
        st.sampled_from(
            ["Accept", "Content-Type", "Origin", "Sec-Fetch-Site", "Authorization", "Range", "Expect"]
        ),
        st.text("abc/*,;= \"'0159:.xyzä\t", max_size=12),
        max_size=3,
    ),
)
def test_any_request_gets_a_decent_answer(
    balancer: Balancer, method: str, path: list[str], query: dict[str, str], fields: dict[str, str]
) -> None:
    asking = "&".join(f"{name}={quote(value, errors='surrogatepass')}" for name, value in query.items())
    before = shown(balancer)
    try:
        status, kind, answer = asked(balancer, method, f"/{'/'.join(path)}?{asking}", None, **fields)
    except UnicodeEncodeError:  # the client itself can't say it
        return
    assert 200 <= status < 500, answer
    if status >= 400 and method != "HEAD" and status != 400:  # aiohttp's own are text
        assert kind == "application/json"
        assert json.loads(answer)["error"]
    assert b"Traceback" not in answer
    assert shown(balancer) == before
