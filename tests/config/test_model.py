"""What a right configuration becomes."""

import math
import pickle
from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from lb.config import (
    Address,
    Backend,
    BalancerSpec,
    Config,
    ConfigError,
    HealthCheck,
    Listener,
    Match,
    OutlierDetection,
    Pool,
    PoolLimits,
    PoolTimeouts,
    Problem,
    RateLimit,
    Retries,
    Route,
    RouteTimeouts,
    StatusSet,
    TokenSource,
    loads,
)
from tests.config.helpers import config


def test_defaults():
    found = config("pools: {p: {backends: ['h:1']}}")
    assert (found.workers, found.watch, found.max_connections) == (1, False, None)
    (listener,) = found.listeners
    assert listener.bind == Address("0.0.0.0", 8080)
    assert (listener.timeouts.request_header, listener.timeouts.request_body) == (10, 30)
    assert (listener.timeouts.write, listener.timeouts.keepalive) == (60, 75)
    assert (listener.limits.request_line, listener.limits.header_bytes) == (8192, 65536)
    assert (listener.limits.header_count, listener.limits.body) == (128, None)
    assert found.trusted_proxies == ()
    assert found.request_id.header == "X-Request-ID"
    assert found.expose_backend is False
    assert found.request_records == 10_000
    assert found.access_log is not None
    assert (found.access_log.path, found.access_log.format) == ("-", "json")
    assert found.admin is not None
    assert (found.admin.bind, found.admin.token) == (Address("127.0.0.1", 9901), None)
    assert (found.drain.delay, found.drain.timeout) == (0, 25)
    pool = found.pools["p"]
    assert pool.balancer == BalancerSpec(policy="p2c")
    assert pool.health_check is None
    assert (pool.timeouts.connect, pool.timeouts.response_header, pool.timeouts.idle) == (2, 30, 60)
    assert pool.timeouts.total is None
    assert pool.keepalive is not None
    assert (pool.keepalive.idle, pool.keepalive.connections) == (55, 256)
    assert pool.backends[0].tier == 0


def test_defaults_of_what_bears_failure_and_load():
    found = config("routes: [{pool: p}]")
    (route,), pool = found.routes, found.pools["p"]
    retries, outliers = pool.retries, pool.outlier_detection
    assert retries is not None
    assert (retries.attempts, retries.budget, retries.min_per_second, retries.body) == (1, 0.2, 3, 65536)
    assert retries.statuses.members == {502, 503, 504}
    assert outliers is not None
    assert (outliers.consecutive_failures, outliers.failure_rate) == (5, None)
    assert (outliers.min_requests, outliers.interval) == (20, 10)
    assert (outliers.ejection, outliers.max_ejection, outliers.max_ejected) == (10, 300, 0.5)
    assert (outliers.statuses, outliers.mode) == (retries.statuses, "enforce")
    assert (pool.slow_start, pool.panic_threshold) == (None, None)
    limits = pool.limits
    assert (limits.requests_per_backend, limits.connections_per_backend) == (None, None)
    assert (limits.requests, limits.connections) == (None, None)
    assert (limits.queue, limits.queue_timeout) == (1024, 1)
    assert [value for _, value in route.timeouts] == [None] * 5
    assert (route.retries, route.rate_limit) == (None, None)


def test_one_pool_and_no_routes_is_one_route_for_all():
    for text in ("", "routes: []\n"):
        (route,) = loads(text + "pools: {p: {backends: ['h:1']}}").routes
        assert route.match.is_empty
        assert (route.pool, route.split, route.strip_prefix, dict(route.targets)) == ("p", None, "", {"p": 1})


def test_everything_written():
    found = config("""
        listeners:
          - bind: "[::1]:0"
            timeouts: {request_header: 250ms, request_body: 1m, keepalive: 1h}
            limits: {request_line: 16KiB, header_bytes: 1MiB, header_count: 10000, body: 5GiB}
          - bind: localhost:0
        trusted_proxies: [10.0.0.0/8, "::1"]
        request_id: {header: X-Trace}
        expose_backend: on
        request_records: off
        access_log: {path: /tmp/a.log, format: json}
        admin: {bind: "[::1]:0", token: {file: /run/token}}
        drain: {delay: 1s, timeout: 0s}
        routes:
          - match: {hosts: ["*.A.org"], path_prefix: /v1/a/, methods: [GET, PURGE], headers: {X-Beta: a b}}
            pool: a
            strip_prefix: /v1
          - split: {a: 0, b: 5}
        pools:
          a:
            balancer: {policy: least_request}
            backends: ["h:1", {id: x, address: "h:2", weight: 0}]
            health_check:
              {path: "/h?x=1", interval: 100ms, timeout: 1s, rise: 1, fall: 1, expect: 204, host: "H:8"}
            timeouts: {connect: 1s, response_header: 2s, idle: 3s}
            keepalive: {idle: 4s, connections: 1}
          b: {backends: ["h:1"], health_check: {type: tcp}, keepalive: off}
    """)
    first = found.listeners[0]
    assert str(first.bind) == "[::1]:0"
    assert (first.timeouts.request_header, first.timeouts.request_body) == (0.25, 60)
    assert (first.limits.header_bytes, first.limits.body) == (2**20, 5 * 2**30)
    assert found.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert found.request_id.header == "X-Trace"
    assert found.expose_backend is True
    assert found.request_records == 0
    assert found.admin is not None
    assert found.admin.token == TokenSource(file="/run/token")
    match = found.routes[0].match
    assert (match.hosts, match.path_prefix) == (("*.a.org",), "/v1/a")
    assert (match.methods, match.headers) == (("GET", "PURGE"), {"x-beta": "a b"})
    assert found.routes[0].strip_prefix == "/v1"
    assert dict(found.routes[1].targets) == {"a": 0, "b": 5}
    pool = found.pools["a"]
    assert pool.balancer == BalancerSpec(policy="least_request", options={})
    assert pool.backends == (
        Backend(id="h:1", address=Address("h", 1)),
        Backend(id="x", address=Address("h", 2), weight=0),
    )
    check = pool.health_check
    assert check is not None
    assert (check.path, check.interval, check.host) == ("/h?x=1", 0.1, "h:8")
    assert 204 in check.expect
    assert 200 not in check.expect
    assert found.pools["b"].health_check == HealthCheck(type="tcp")
    assert found.pools["b"].keepalive is None


@pytest.mark.parametrize("word", ["off", "OFF", "false", "'off'"])
def test_what_can_be_turned_off(word):
    found = loads(
        f"""
access_log: {word}
admin: {word}
request_records: {word}
max_connections: {word}
listeners: [{{bind: 'h:1', limits: {{body: {word}}}}}]
routes: [{{pool: p, retries: {word}, rate_limit: {word}, timeouts: {{total: {word}}}}}]
pools:
  p: {{backends: ['h:1'], health_check: {word}, keepalive: {word}, retries: {word}, slow_start: {word},
       outlier_detection: {word}, panic_threshold: {word}, timeouts: {{total: {word}}},
       limits: {{requests: {word}, queue: {word}}}}}
  q: {{backends: ['h:1'], outlier_detection: {{failure_rate: {word}, statuses: {word}}},
       retries: {{body: {word}, statuses: {word}}}}}
""".replace("'off'", '"off"')
    )
    assert (found.access_log, found.admin, found.request_records) == (None, None, 0)
    assert found.listeners[0].limits.body is None
    assert found.max_connections is None
    (route,), pool, other = found.routes, found.pools["p"], found.pools["q"]
    assert (pool.health_check, pool.keepalive) == (None, None)
    assert (pool.retries, pool.outlier_detection) == (None, None)
    assert (pool.slow_start, pool.panic_threshold, pool.timeouts.total) == (None, None, None)
    assert (pool.limits.requests, pool.limits.queue) == (None, 0)
    assert (route.retries, route.rate_limit) == (Retries(attempts=0), None)
    assert route.timeouts.total == math.inf
    assert other.outlier_detection == OutlierDetection(failure_rate=None, statuses=StatusSet())
    assert other.retries == Retries(body=0, statuses=StatusSet())


def test_everything_written_of_what_bears_failure_and_load():
    found = config("""
        workers: 256
        watch: on
        max_connections: 20000
        listeners: [{bind: "unix:/run/lb.sock", timeouts: {write: 20s}}, {bind: "unix:/run/b"}]
        routes:
          - pool: p
            timeouts: {total: 10s, connect: 1s, response_header: 500ms, idle: 2m}
            retries: {attempts: 10, body: off, statuses: [429, 500-503]}
            rate_limit: {requests: 100, per: 1m, burst: 7, key: header:X-User-ID}
        pools:
          p:
            backends: [{address: "h:1", tier: 9}]
            retries: {attempts: 0, budget: 100%, min_per_second: 0, body: 1MiB, statuses: off}
            outlier_detection:
              {consecutive_failures: off, failure_rate: 12.5%, min_requests: 1, interval: 100ms,
               ejection: 1s, max_ejection: 1s, max_ejected: 100%, statuses: 500-599, mode: observe}
            slow_start: 30s
            panic_threshold: 50%
            limits: {requests_per_backend: 1, connections_per_backend: 2, requests: 3, connections: 4,
                     queue: off, queue_timeout: 50ms}
            timeouts: {total: 1s}
    """)
    assert (found.workers, found.watch, found.max_connections) == (256, True, 20_000)
    assert [listener.bind.path for listener in found.listeners] == ["/run/lb.sock", "/run/b"]
    assert found.listeners[0].timeouts.write == 20
    (route,), pool = found.routes, found.pools["p"]
    assert route.timeouts == RouteTimeouts(total=10, connect=1, response_header=0.5, idle=120)
    assert route.retries == Retries(attempts=10, body=0, statuses=StatusSet(((429, 429), (500, 503))))
    assert route.rate_limit == RateLimit(requests=100, per=60, burst=7, key="header:x-user-id")
    assert pool.backends[0].tier == 9
    assert pool.retries == Retries(attempts=0, budget=1, min_per_second=0, body=2**20, statuses=StatusSet())
    assert pool.outlier_detection == OutlierDetection(
        consecutive_failures=None, failure_rate=0.125, min_requests=1, interval=0.1, ejection=1,
        max_ejection=1, max_ejected=1, statuses=StatusSet(((500, 599),)), mode="observe",
    )  # fmt: skip
    assert (pool.slow_start, pool.panic_threshold) == (30, 0.5)
    assert pool.limits == PoolLimits(
        requests_per_backend=1, connections_per_backend=2, requests=3, connections=4, queue=0,
        queue_timeout=0.05,
    )  # fmt: skip
    assert pool.timeouts == PoolTimeouts(total=1)


def test_one_worker_per_core():
    assert config("workers: auto").workers == "auto"


def test_a_rate_limit_allows_a_burst_of_its_requests():
    (route,) = config("routes: [{pool: p, rate_limit: {requests: 5}}]").routes
    assert route.rate_limit == RateLimit(requests=5, per=1, burst=5, key="client")


@pytest.mark.parametrize("written", ["502-504", "'502, 503,504'", "[502, 503, 504]", "[502-503, '504']"])
def test_statuses_are_text_or_a_list(written):
    retries = (
        config(f"pools: {{p: {{backends: ['h:1'], retries: {{statuses: {written}}}}}}}").pools["p"].retries
    )
    assert retries is not None
    assert retries.statuses.members == {502, 503, 504}


class TestARouteAndItsPool:
    """What holds for a route's requests: its own, and the pool's where it says nothing."""

    TEXT = """
        routes:
          - {match: {path_prefix: /a}, pool: p, timeouts: {idle: 5s, total: off}, retries: off}
          - {match: {path_prefix: /b}, pool: p, timeouts: {total: 1s}, retries: {attempts: 3}}
          - {match: {path_prefix: /c}, pool: p, retries: {attempts: 0}}
          - {pool: q}
        pools:
          p: {backends: ["h:1"], timeouts: {total: 9s, connect: 8s}, retries: {budget: 5%}}
          q: {backends: ["h:1"], retries: off}
    """

    def test_timeouts(self):
        found = config(self.TEXT)
        pool = found.pools["p"]
        first, second, third, _ = (route.timeouts_with(pool) for route in found.routes)
        assert first == PoolTimeouts(total=None, connect=8, idle=5)
        assert second == PoolTimeouts(total=1, connect=8)
        assert third == pool.timeouts

    def test_retries(self):
        found = config(self.TEXT)
        pool = found.pools["p"]
        first, second, third, fourth = found.routes
        assert first.retries_with(pool) is None
        assert second.retries_with(pool) == Retries(attempts=3)
        assert third.retries_with(pool) is None
        assert fourth.retries_with(pool) == pool.retries == Retries(budget=0.05)
        assert fourth.retries_with(found.pools["q"]) is None

    def test_dumped(self):
        found = config(self.TEXT)
        dumped = found.model_dump(mode="json")
        assert dumped["routes"][0]["timeouts"] == {
            "total": "off", "connect": None, "response_header": None, "idle": "5s", "tunnel": None
        }  # fmt: skip
        assert dumped["routes"][0]["retries"]["attempts"] == 0
        assert dumped["routes"][3]["retries"] is None
        assert Config.model_validate(found.model_dump(mode="json", exclude_defaults=True)) == found
        assert RouteTimeouts(total=math.inf) == found.routes[0].timeouts.model_copy(update={"idle": None})


def test_models_are_frozen():
    found = config("")
    with pytest.raises(ValidationError):
        found.request_records = 5  # type: ignore[misc]


def test_models_can_be_built_in_code():
    built = Config(
        listeners=(Listener(bind=Address("127.0.0.1", 0)),),
        routes=(Route(match=Match(hosts=("a",)), pool="p"),),
        pools={"p": Pool(backends=(Backend(address=Address("h", 1)),), health_check=None)},
    )
    assert built == loads("""
listeners: [{bind: "127.0.0.1:0"}]
routes: [{match: {hosts: [a]}, pool: p}]
pools: {p: {backends: ["h:1"]}}
""")
    assert built.routes[0].match.is_empty is False
    with pytest.raises(ValidationError, match="there is no pool 'q'"):
        Config(routes=(Route(pool="q"),), pools=built.pools)


def test_a_configuration_survives_being_dumped():
    found = config("""
        trusted_proxies: [10.0.0.0/8]
        listeners: [{bind: "h:1", timeouts: {keepalive: 1500ms}, limits: {body: 1MiB}}]
        pools:
          p:
            backends: ["h:1"]
            health_check: {expect: "200,204"}
            outlier_detection: {failure_rate: 12.5%, statuses: off}
            panic_threshold: 29%
            retries: {statuses: [504, 502, 503]}
    """)
    dumped = found.model_dump(mode="json")
    assert dumped["listeners"][0]["bind"] == "h:1"
    assert dumped["listeners"][0]["timeouts"]["keepalive"] == "1.5s"
    assert dumped["listeners"][0]["limits"]["body"] == "1MiB"
    assert dumped["pools"]["p"]["health_check"]["expect"] == "200,204"
    assert dumped["pools"]["p"]["balancer"] == {"policy": "p2c"}
    assert dumped["pools"]["p"]["outlier_detection"]["failure_rate"] == "12.5%"
    assert dumped["pools"]["p"]["outlier_detection"]["statuses"] == "off"
    assert dumped["pools"]["p"]["panic_threshold"] == "29%"
    assert dumped["pools"]["p"]["retries"]["budget"] == "20%"
    assert dumped["pools"]["p"]["retries"]["statuses"] == "502-504"
    assert pickle.loads(pickle.dumps(found)) == found
    assert Config.model_validate(found.model_dump(mode="json", exclude_defaults=True)) == found


def test_an_error_can_be_pickled_and_keeps_the_order_of_the_file():
    error = ConfigError([Problem("f", 2, 1, "b"), Problem("f", 1, 9, "a")])
    assert [problem.message for problem in error.problems] == ["a", "b"]
    assert str(pickle.loads(pickle.dumps(error))) == "f:1:9: a\nf:2:1: b"


class TestToken:
    def test_from_a_file(self, tmp_path):
        path = tmp_path / "token"
        for content in (b"secret", b"secret\n", b"secret\r\n"):
            path.write_bytes(content)
            assert TokenSource(file=str(path)).read() == "secret"

    def test_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("LB_TEST_TOKEN", "secret\n")
        assert TokenSource(env="LB_TEST_TOKEN").read() == "secret"

    def test_that_is_not_there(self, tmp_path, monkeypatch):
        monkeypatch.delenv("LB_TEST_TOKEN", raising=False)
        with pytest.raises(
            ValueError, match="environment variable LB_TEST_TOKEN for the admin token isn't set"
        ):
            TokenSource(env="LB_TEST_TOKEN").read()
        with pytest.raises(
            ValueError, match=r"can't read the admin token from .*: No such file or directory"
        ):
            TokenSource(file=str(tmp_path / "none")).read()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"\n", "is empty"),
            (b"a b", "has a space"),
            (b"a\nb\n", "has a space, a line break"),
            ("ä".encode(), "what isn't ASCII"),
        ],
    )
    def test_that_is_none(self, tmp_path, content, message):
        path = tmp_path / "token"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            TokenSource(file=str(path)).read()
        assert "a b" not in str(caught.value)
