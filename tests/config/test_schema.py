"""The JSON Schema: valid itself, and of one mind with the loader."""

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from lb.config import (
    Backend,
    Config,
    Drain,
    HealthCheck,
    Keepalive,
    Listener,
    ListenerLimits,
    ListenerTimeouts,
    OutlierDetection,
    Pool,
    PoolLimits,
    PoolTimeouts,
    RateLimit,
    Retries,
    Route,
    RouteTimeouts,
    json_schema,
    loads,
)
from lb.config.access import BasicAuth, RequestHeaders, ResponseHeaders, RouteLimits
from lb.config.answers import Respond
from lb.config.latency import LatencySpec
from lb.config.loader import parse
from lb.config.pools import Zones
from lb.config.problem import ConfigError
from lb.config.reference import reference
from lb.config.scenario import (
    ArrivalsSpec,
    ClientsSpec,
    Deploy,
    FailingSpan,
    KeysSpec,
    ScenarioSpec,
    ServerSpec,
    SimulatedPool,
    SlowSpan,
    WorkersSpec,
    scenario_of,
)
from lb.config.schema import scenario_schema
from lb.config.section import Section
from lb.config.sticky import Sticky
from lb.config.written import natural
from tests.config.helpers import problems
from tests.simulate.library import LIBRARY

ROOT = Path(__file__).parents[2]
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def accepts(text: str) -> bool:
    """As an editor of YAML 1.2 sees the text."""
    document, _ = parse(text, "<string>")
    return VALIDATOR.is_valid(natural(document.value))


def test_it_is_a_schema():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_is_described_and_every_default_is_right():
    def walk(node, path):
        for key, inner in node.get("properties", {}).items():
            if not isinstance(inner, dict):
                continue
            described = "description" in inner or "description" in SCHEMA["$defs"].get(
                inner.get("$ref", "").rpartition("/")[2], {}
            )
            assert described or path[-1] == "then", (*path, key)
            if "default" in inner:
                Draft202012Validator(inner | {"$defs": SCHEMA["$defs"]}).validate(inner["default"])
            walk(inner, (*path, key))

    walk(SCHEMA, ("",))
    for name, model in SCHEMA["$defs"].items():
        walk(model, (name,))


def test_no_null_and_no_python_in_it():
    assert "null" not in str(SCHEMA).lower().replace("enum", "")
    assert SCHEMA["$defs"]["PoolTimeouts"]["properties"]["connect"]["default"] == "2s"
    assert SCHEMA["$defs"]["Admin"]["properties"]["bind"]["default"] == "127.0.0.1:9901"
    assert SCHEMA["$defs"]["HealthCheck"]["properties"]["expect"]["default"] == "200-399"


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_it_accepts_every_example(path):
    assert accepts(path.read_text())
    VALIDATOR.validate(yaml.safe_load(path.read_text()))  # and as YAML 1.1 reads it: off is false


HASH = "$pbkdf2-sha256$1212$4vjV83LKPjQzk31VI4E0Vw$hsYF68OiOUPdDZ1Fg.fJPeq1h/gXXY7acBp9/6c.tmQ"
POOL = "pools: {p: {backends: ['h:1']}}\n"
RIGHT = [
    "",
    "access_log: off\nadmin: false\n",
    "request_records: off\n",
    "request_records: 5\n",
    "expose_backend: on\n",
    "listeners: [{bind: '[::]:0', limits: {body: off, request_line: 8192}}]\n",
    "listeners: [{bind: 'h:0', limits: {body: 1MiB}}]\n",
    "routes: [{split: {p: 1}, match: {headers: {a: 1, b: true, c: x}}}]\n",
    "drain: {delay: 0s, timeout: 1.5m}\n",
    "workers: 1\n",
    "workers: 256\n",
    "workers: auto\n",
    "watch: true\n",
    "max_connections: off\n",
    "max_connections: 1\n",
    "listeners: [{bind: 'unix:/run/lb.sock', timeouts: {write: 1s}}]\n",
    "listeners: [{bind: 'unix:8080'}]\n",
    "routes: [{pool: p, timeouts: {}}]\n",
    "routes: [{pool: p, timeouts: {total: off, connect: 1s, response_header: 1s, idle: 1s}}]\n",
    "routes: [{pool: p, retries: off, rate_limit: off}]\n",
    "routes: [{pool: p, retries: {attempts: 10}}]\n",
    "routes: [{pool: p, rate_limit: {requests: 1, per: 1m, burst: 2, key: route}}]\n",
    "routes: [{pool: p, rate_limit: {requests: 1, key: 'header:X-Key'}}]\n",
    "routes: [{redirect: 'https://{host}{path}', match: {scheme: http}}]\n",
    "routes: [{redirect: {to: /x, status: 308}, allow: [10.0.0.0/8, unix], deny: ['::1']}]\n",
    "routes: [{respond: {}}]\n",
    "routes: [{respond: {status: 410, body: gone, content_type: text/plain}}]\n",
    "routes: [{pool: p, headers: {request: {set: {host: a, X-A: 1}, add: {x: [a, true]}, remove: [b]}}}]\n",
    "routes: [{pool: p, errors: {502: {body: x}, '400-404,499': {body: y}}}]\n",
    "errors: {502: {body: x, content_type: text/html; charset=utf-8}}\n",
    "listeners: [{bind: 'h:0', limits: {requests_per_connection: 1, connections_per_client: off}}]\n",
    "listeners: [{bind: 'h:0', limits: {body_rate: 1KiB}}]\n",
]
WRONG = [
    "access_log: no\n",
    "access_log: '-'\n",
    "request_records: -1\n",
    "request_records: many\n",
    "expose_backend: 'yes'\n",
    "listeners: []\n",
    "listeners: [{}]\n",
    "listeners: [{bind: 8080}]\n",
    "listeners: [{bind: 'h:1', limits: {header_count: 0}}]\n",
    "routes: [{}]\n",
    "routes: [{pool: p, split: {p: 1}}]\n",
    "routes: [{split: {p: -1}}]\n",
    "drain: {delay: 5}\n",
    "drain: 5s\n",
    "workers: 0\n",
    "workers: 257\n",
    "workers: off\n",
    "workers: many\n",
    "watch: 5s\n",
    "max_connections: 0\n",
    "listeners: [{bind: 'unix:lb.sock'}]\n",
    "listeners: [{bind: 'unix:/run/'}]\n",
    "listeners: [{bind: /run/lb.sock}]\n",
    "listeners: [{bind: 'h:1', timeouts: {write: off}}]\n",
    "admin: {bind: 'unix:/run/lb.sock'}\n",
    "routes: [{pool: p, timeouts: {connect: off}}]\n",
    "routes: [{pool: p, timeouts: off}]\n",
    "routes: [{pool: p, retries: 3}]\n",
    "routes: [{pool: p, rate_limit: {}}]\n",
    "routes: [{pool: p, rate_limit: {requests: 0}}]\n",
    "routes: [{pool: p, rate_limit: {requests: 1, key: ip}}]\n",
    "routes: [{pool: p, rate_limit: {requests: 1, key: 'header:'}}]\n",
    "routes: [{pool: p, respond: {}}]\n",
    "routes: [{pool: p, match: {scheme: ftp}}]\n",
    "routes: [{redirect: {to: /x, status: 300}}]\n",
    "routes: [{redirect: {}}]\n",
    "routes: [{pool: p, basic_auth: {}}]\n",
    "routes: [{pool: p, headers: {request: {set: {'a b': 1}}}}]\n",
    "routes: [{pool: p, errors: {200: {body: x}}}]\n",
    "errors: {5xx: {body: x}}\n",
    "admin: {token: secret}\n",
    "admin: {token: {}}\n",
]
POOLS_RIGHT = [
    "balancer: p2c",
    "balancer: {policy: random}",
    "balancer: 'a:B'",
    "balancer: {policy: 'a.b:C', x: 1}",
    "health_check: off",
    "health_check: {type: tcp, rise: 1}",
    "health_check: {expect: 200}",
    "health_check: {expect: '200,300-399'}",
    "keepalive: off",
    "health_check: {expect: [200, '300-399']}",
    "retries: off",
    "retries: {attempts: 0, budget: 0%, min_per_second: 0, body: 0, statuses: off}",
    "retries: {budget: 12.5%, body: off, statuses: [429, '502-504']}",
    "retries: {budget: 100%, body: 64MiB, statuses: 502}",
    "retries: {statuses: '502, 503'}",
    "outlier_detection: off",
    "outlier_detection: {consecutive_failures: off, failure_rate: 0.5%, max_ejected: 100.0%}",
    "outlier_detection: {consecutive_failures: 1, failure_rate: off, min_requests: 1, statuses: off}",
    "outlier_detection: {interval: 100ms, ejection: 1s, max_ejection: 1s, mode: observe}",
    "slow_start: off",
    "slow_start: 30s",
    "panic_threshold: off",
    "panic_threshold: 50%",
    "limits: {}",
    "limits: {requests_per_backend: 1, connections_per_backend: off, requests: 2, connections: 3}",
    "limits: {queue: off, queue_timeout: 1ms}",
    "limits: {queue: 0}",
    "timeouts: {total: off}",
    "timeouts: {total: 1s}",
]
POOLS_WRONG = [
    "balancer: p2d",
    "balancer: {polcy: p2c}",
    "health_check: {type: tcp, path: /x}",
    "health_check: {rise: 0}",
    "health_check: {expect: 2xx}",
    "keepalive: on",
    "timeouts: {connect: 2}",
    "health_check: {expect: []}",
    "health_check: {expect: off}",
    "health_check: {expect: 99}",
    "retries: 3",
    "retries: {attempts: 11}",
    "retries: {budget: 0.2}",
    "retries: {budget: 20}",
    "retries: {budget: 101%}",
    "retries: {budget: 100.5%}",
    "retries: {budget: off}",
    "retries: {min_per_second: 1.5}",
    "retries: {statuses: 200}",
    "retries: {statuses: 302-504}",
    "retries: {statuses: []}",
    "retries: {statuses: [502, 200]}",
    "retries: {statuses: [502, off]}",
    "outlier_detection: {consecutive_failures: 0}",
    "outlier_detection: {failure_rate: 0%}",
    "outlier_detection: {max_ejected: 0.00%}",
    "outlier_detection: {max_ejected: off}",
    "outlier_detection: {mode: off}",
    "slow_start: 30",
    "panic_threshold: 0.5",
    "panic_threshold: 000%",
    "limits: off",
    "limits: {requests: 0}",
    "limits: {queue: -1}",
    "limits: {queue_timeout: off}",
    "timeouts: {total: never}",
]


@pytest.mark.parametrize("text", RIGHT)
def test_it_accepts_what_the_loader_accepts(text):
    loads(text + POOL)
    assert accepts(text + POOL)


@pytest.mark.parametrize("text", WRONG)
def test_it_refuses_what_the_loader_refuses(text):
    assert problems(text + POOL)
    assert not accepts(text + POOL)


@pytest.mark.parametrize("line", POOLS_RIGHT)
def test_it_accepts_what_the_loader_accepts_in_a_pool(line):
    text = f"pools: {{p: {{backends: [h:1, {{address: 'h:2', id: 7}}], {line}}}}}"
    assert accepts(text)
    assert ":B" in line or ":C" in line or not problems(text)


@pytest.mark.parametrize("line", POOLS_WRONG)
def test_it_refuses_what_the_loader_refuses_in_a_pool(line):
    text = f"pools: {{p: {{backends: [h:1], {line}}}}}"
    assert problems(text)
    assert not accepts(text)


VALUES = [
    *["off", "on", "auto", "~", "''", "x", "client", "observe", "h:1", "'unix:/a'"],
    *["0", "1", "-1", "1.5", "200", "502", "2000000", "'502-504'"],
    *["0s", "0.0m", "10s", "20%", "0%", "0.0%", "100%", "101%", "0.2", "64KiB"],
    *["[]", "[502]", "[x]", "{}", "[{}]"],
]
IN_A_POOL = "pools: {p: {backends: ['h:1'], KEY}}\n"
IN_A_ROUTE = POOL + "routes: [{pool: p, KEY}]\n"
IN_A_LISTENER = POOL + "listeners: [{bind: 'h:1', KEY}]\n"
SECTIONS: list[tuple[type[Section], str]] = [
    (Config, POOL + "KEY\n"),
    (Listener, IN_A_LISTENER),
    (ListenerTimeouts, IN_A_LISTENER.replace("KEY", "timeouts: {KEY}")),
    (ListenerLimits, IN_A_LISTENER.replace("KEY", "limits: {KEY}")),
    (Drain, POOL + "drain: {KEY}\n"),
    (Route, IN_A_ROUTE),
    (RouteTimeouts, IN_A_ROUTE.replace("KEY", "timeouts: {KEY}")),
    (Retries, IN_A_ROUTE.replace("KEY", "retries: {KEY}")),
    (RouteLimits, IN_A_ROUTE.replace("KEY", "limits: {KEY}")),
    (BasicAuth, IN_A_ROUTE.replace("KEY", f"basic_auth: {{users: {{a: '{HASH}'}}, KEY}}")),
    (Respond, POOL + "routes: [{respond: {KEY}}]\n"),
    (RequestHeaders, IN_A_ROUTE.replace("KEY", "headers: {request: {KEY}}")),
    (ResponseHeaders, IN_A_ROUTE.replace("KEY", "headers: {response: {KEY}}")),
    (RateLimit, IN_A_ROUTE.replace("KEY", "rate_limit: {requests: 1, KEY}")),
    (Pool, IN_A_POOL),
    (Retries, IN_A_POOL.replace("KEY", "retries: {KEY}")),
    (OutlierDetection, IN_A_POOL.replace("KEY", "outlier_detection: {KEY}")),
    (PoolLimits, IN_A_POOL.replace("KEY", "limits: {KEY}")),
    (PoolTimeouts, IN_A_POOL.replace("KEY", "timeouts: {KEY}")),
    (Keepalive, IN_A_POOL.replace("KEY", "keepalive: {KEY}")),
    (HealthCheck, IN_A_POOL.replace("KEY", "health_check: {KEY}")),
    (Zones, IN_A_POOL.replace("KEY", "zones: {KEY}")),
    (Sticky, IN_A_POOL.replace("KEY", "sticky: {cookie: a, KEY}")),
    (Backend, "pools: {p: {backends: [{address: 'h:1', KEY}]}}\n"),
]
ELSEWHERE = {"pools", "routes", "pool", "split", "bind", "backends", "balancer", "address", "requests", "id"}
ELSEWHERE |= {"respond", "redirect"}
ELSEWHERE |= {"shadow", "cookie", "secret"}
"""Keys that refer to others, that must be given, or that the texts have already."""
ONLY_THE_LOADER = {"trusted_proxies", "host", "hosts", "allow", "deny", "file", "users"}
"""What no pattern can say."""


@pytest.mark.parametrize(("section", "text"), SECTIONS)
def test_it_is_of_one_mind_with_the_loader_on_every_key(section, text):
    for key in section.model_fields.keys() - ELSEWHERE - ONLY_THE_LOADER:
        for value in VALUES:
            written = text.replace("KEY", f"{key}: {value}")
            found = problems(written)
            if "nothing would be ejected" not in str(found):
                assert accepts(written) == (not found), (written, found)


# --- scenarios ---

SCENARIO_SCHEMA = scenario_schema()
SCENARIO = "duration: 10s\n"
OPEN = SCENARIO + "arrivals: {rate: 1}\n"
BACKENDS = "backends: [{latency: 1ms}]\n"
IN_A_SERVER = OPEN + "backends: [{latency: 1ms, KEY}]\n"
SCENARIO_SECTIONS: list[tuple[type[Section], str]] = [
    (ScenarioSpec, OPEN + BACKENDS + "KEY\n"),
    (ArrivalsSpec, SCENARIO + BACKENDS + "arrivals: {rate: 1, KEY}\n"),
    (ClientsSpec, SCENARIO + BACKENDS + "clients: {count: 1, KEY}\n"),
    (KeysSpec, OPEN + BACKENDS + "keys: {KEY}\n"),
    (WorkersSpec, OPEN + BACKENDS + "workers: {count: 2, KEY}\n"),
    (ServerSpec, IN_A_SERVER),
    (LatencySpec, OPEN + "backends: [{latency: {KEY}}]\n"),
    (SlowSpan, IN_A_SERVER.replace("KEY", "slow: [{KEY}]")),
    (FailingSpan, IN_A_SERVER.replace("KEY", "failing: [{KEY}]")),
    (SimulatedPool, OPEN + BACKENDS + "pool: {KEY}\n"),
    (Deploy, OPEN + BACKENDS + "deploy: {every: 1s, down: 1s, KEY}\n"),
]
SAID_TOGETHER = (
    "needs one of the two",
    "needs exactly one of",
    "means nothing",
    "must be less than the duration",
    "must be later than when it joins",
    "nothing would be ejected",
    "no backend is in the zone",
)
"""What several keys say together, and the schema doesn't tell."""
GIVEN = {"rate", "backends", "duration", "arrivals", "clients", "every", "down"}
ANY_TEXT = {"about", "id", "list"}
"""Where off and 502 are text to the loader."""


def scenario_problems(text: str) -> list[str]:
    try:
        scenario_of(text)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def scenario_accepts(text: str) -> bool:
    document, _ = parse(text, "<string>")
    return Draft202012Validator(SCENARIO_SCHEMA).is_valid(natural(document.value))


def test_the_schema_of_scenarios_is_one():
    Draft202012Validator.check_schema(SCENARIO_SCHEMA)
    assert "null" not in str(SCENARIO_SCHEMA).lower()
    for name, model in [*SCENARIO_SCHEMA["$defs"].items(), ("", SCENARIO_SCHEMA)]:
        for key, inner in model["properties"].items():
            assert "description" in inner, (name, key)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_it_accepts_every_scenario(path):
    assert scenario_accepts(path.read_text())
    Draft202012Validator(SCENARIO_SCHEMA).validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("section", "text"), SCENARIO_SECTIONS, ids=lambda each: getattr(each, "__name__", "")
)
def test_it_is_of_one_mind_with_the_loader_on_every_key_of_a_scenario(section, text):
    for key in set(section.written_keys()) - GIVEN - ANY_TEXT:
        for value in [
            *VALUES,
            "{count: 3}",
            "[{upto: 1ms, count: 1}]",
            "[{share: 20%, latency: 1ms}]",
            "[a, b]",
        ]:
            if f"{key}: " in text.replace("KEY", ""):
                continue
            written = text.replace("KEY", f"{key}: {value}")
            found = scenario_problems(written)
            if not any(words in str(found) for words in SAID_TOGETHER):
                assert scenario_accepts(written) == (not found), (written, found)


def test_the_reference_is_up_to_date():
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == reference(), "run: python -m lb.config.reference > docs/configuration.md"
