"""Each file in config/ is a configuration that works, and does what its name promises."""

import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from lb.certificates import CIPHERS
from lb.config import Config, load, loads
from lb.config.answers import pages_by_status
from tests.certificates import write_ca, write_pair

ROOT = Path(__file__).parents[2]


def minimal(config: Config) -> None:
    assert len(config.pools["greeter"].backends) == 3


def sidecar(config: Config) -> None:
    assert config.admin is not None
    assert config.admin.token is not None


def routes(config: Config) -> None:
    assert len(config.pools) == 3
    assert config.routes[-1].match.is_empty
    assert dict(config.routes[1].targets) == {"greeter": 95, "greeter-canary": 5}


def health(config: Config) -> None:
    assert all(pool.health_check is not None for pool in config.pools.values())


def weighted(config: Config) -> None:
    assert [backend.weight for backend in config.pools["greeter"].backends] == [5, 1, 1, 0]


def custom_policy(config: Config) -> None:
    assert config.pools["greeter"].balancer.policy == "my_policy:FewestBytes"


def cache(config: Config) -> None:
    balancer = config.pools["cache"].balancer
    assert balancer.policy == "ring_hash"
    assert balancer.options == {"key": "query:user", "bounded_load": 1.25, "vnodes": 160}


def latency(config: Config) -> None:
    balancer = config.pools["greeter"].balancer
    assert balancer.policy == "peak_ewma"
    assert balancer.options == {"decay": 10.0, "penalty": 2.0}


def resilient(config: Config) -> None:
    pool = config.pools["greeter"]
    assert [backend.tier for backend in pool.backends] == [0, 0, 1]
    assert pool.outlier_detection is not None
    assert pool.outlier_detection.failure_rate == 0.5
    assert (pool.slow_start, pool.limits.requests_per_backend, pool.limits.queue) == (30, 100, 500)
    search, exports, _ = config.routes
    assert search.rate_limit is not None
    assert [route.timeouts_with(pool).total for route in config.routes] == [2, None, 15]
    assert [route.retries_with(pool) for route in config.routes] == [search.retries, None, pool.retries]
    assert exports.timeouts_with(pool).response_header == 300


def access(config: Config) -> None:
    secure, robots, internal, admin, upload, rest = config.routes
    assert secure.redirect is not None
    assert robots.respond is not None
    assert (len(internal.allow), len(internal.deny)) == (3, 1)
    assert admin.basic_auth is not None
    assert list(admin.basic_auth.hashes) == ["alice"]
    assert upload.limits.body == 2**20
    assert rest.headers.request.host == "greeter.internal"
    assert pages_by_status(config.errors)[503].media_type == "text/html; charset=utf-8"


def sticky(config: Config) -> None:
    pool = config.pools["shop"]
    assert (config.own_zone, pool.backends[2].zone) == ("eu-1a", "eu-1b")
    assert pool.shadow is not None
    assert (pool.balancer.policy, pool.shadow.policy) == ("prequal", "peak_ewma")
    assert pool.sticky is not None
    assert pool.sticky.attributes == "; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax"
    assert pool.zones is not None
    assert pool.zones.min_backends == 2


def workers(config: Config) -> None:
    assert (config.workers, config.watch, config.max_connections) == ("auto", True, 20_000)


def tls(config: Config) -> None:
    """Every key of TLS and the PROXY protocol is in it."""
    many, clients, behind = config.listeners
    assert many.tls is not None
    assert clients.tls is not None
    keys = {*many.tls.model_fields_set, *clients.tls.model_fields_set}
    assert keys == set(type(many.tls).model_fields)
    assert many.tls.ciphers == CIPHERS
    assert (clients.tls.client_ca or "").endswith("/tls/clients-ca.crt")
    assert clients.tls.client_auth == "require"
    assert behind.proxy_protocol is not None
    assert [str(each) for each in behind.proxy_protocol.senders] == ["10.0.0.0/8"]


def backends_tls(config: Config) -> None:
    inside, agent, edge = (config.pools[name] for name in ("payments", "agent", "edge"))
    assert inside.tls is not None
    assert (inside.tls.server_name, inside.tls.insecure_skip_verify) == ("payments.internal", False)
    assert agent.backends[0].id == "unix:/run/agent/http.sock"
    assert edge.proxy_protocol == "v2"


def discovery(config: Config) -> None:
    files, names, greeter = (config.pools[name].discovery for name in ("files", "names", "greeter"))
    assert [each.kind for each in (*files, *names, *greeter)] == ["file", "file", "dns", "dns", "consul"]
    assert files[1].file is not None
    assert files[1].file.path == str(ROOT / "config" / "more.json")
    assert files[0].section.on_empty == "accept"
    for source in (names[1], greeter[0]):
        section = source.section
        assert section.model_fields_set >= set(type(section).model_fields) - {"port", "ca"}
        assert section.on_empty == type(section).model_fields["on_empty"].default
        assert section.max_stale == type(section).model_fields["max_stale"].default


def full(config: Config) -> None:
    """Every key is in it, and but for the examples' own values each has its default."""
    (listener, _), pool = config.listeners, config.pools["greeter"]
    canary = config.pools["greeter-canary"]
    assert pool.health_check is not None
    assert pool.keepalive is not None
    assert config.admin is not None
    assert config.admin.token is not None
    sections = [config, listener, listener.timeouts, listener.limits, config.request_id, config.access_log]
    sections += [config.admin, config.drain, pool, pool.backends[1], pool.health_check, pool.timeouts]
    sections += [pool.keepalive, pool.balancer, pool.retries, pool.outlier_detection, pool.limits]
    route = config.routes[0]
    sections += [route.match, route.timeouts, route.rate_limit, config.forwarded, canary.tls, route.limits]
    sections += [route.headers, route.headers.request, route.headers.response, config.routes[1].redirect]
    for section in sections:
        assert section is not None
        fields = set(type(section).model_fields) - {"options"}
        assert section.model_fields_set >= fields, type(section).__name__
    defaults = [listener.timeouts, listener.limits, config.request_id, config.access_log, config.drain]
    for section in [*defaults, config.forwarded]:
        assert section == type(section)()
    for section in [pool.timeouts, pool.keepalive, pool.retries, pool.outlier_detection, pool.limits]:
        assert section == type(section)()
    assert pool.sticky is not None
    assert pool.sticky.secret is not None
    assert pool.zones == type(pool.zones)()
    for section in [pool.sticky, pool.zones, pool.shadow]:
        fields = set(type(section).model_fields) - {"options"}
        assert section.model_fields_set >= fields
    assert (config.workers, config.watch, config.max_connections) == (1, False, None)
    assert (pool.slow_start, pool.panic_threshold, pool.tls, pool.proxy_protocol) == (None, None, None, None)


def registry(config: Config) -> None:
    assert config.registry is not None
    assert (config.registry.store.file or "").endswith("/config/registry.journal")
    source = config.pools["greeter"].discovery[0].registry
    assert source is not None
    assert (source.service, source.on_empty) == ("greeter", "accept")


CHECKS = (
    registry,
    access,
    minimal,
    sidecar,
    routes,
    health,
    weighted,
    custom_policy,
    cache,
    latency,
    resilient,
    workers,
    tls,
    backends_tls,
    discovery,
    full,
    sticky,
)
EXAMPLES = {check.__name__.replace("_", "-"): check for check in CHECKS}


def test_every_example_is_covered():
    assert {path.stem for path in (ROOT / "config").iterdir() if path.suffix in (".yaml", ".yml")} == set(
        EXAMPLES
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, monkeypatch, tmp_path):
    if name == "custom-policy":
        monkeypatch.syspath_prepend(str(ROOT / "examples"))
    if name == "tls":  # whose files are anybody's own
        (tmp_path / "tls").mkdir()
        for domain in ("example.org", "example.com"):
            write_pair(tmp_path / "tls", trustme.CA(), domain)
        write_ca(tmp_path / "tls", trustme.CA(), "clients-ca")
    path = ROOT / "config" / f"{name}.yaml"
    config = loads(path.read_text(), directory=tmp_path) if name == "tls" else load(path)
    EXAMPLES[name](config)
    if name != "sidecar":
        assert all(listener.bind.is_loopback for listener in config.listeners)
        assert config.admin is None or config.admin.bind.is_loopback


def test_importing_the_models_is_light():
    heavy = "asyncio aiohttp uvloop jsonschema difflib lb.balance lb.core lb.proxy"
    program = f"import sys, lb.config; print([name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
