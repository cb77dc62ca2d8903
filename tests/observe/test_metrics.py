"""The page of metrics, read by prometheus_client's parsers and by promtool."""

import subprocess
import sys
import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from lb.core.backend import Ejection, Histogram
from lb.core.failure import CONNECT_FAILED, NO_BACKENDS, TUNNEL_IDLE
from lb.core.pool import Pool
from lb.observe.clients import ClientMetrics
from lb.observe.families import STATES
from lb.observe.metrics import LbCollector, ReloadState
from tests.observe.made import made_exchange, made_pool
from tests.tools import need

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def made_collector(*pools: Pool) -> LbCollector:
    """Metrics of pools, two listeners, some requests and two reloads."""
    clients = ClientMetrics()
    clients.listener("0.0.0.0:8080").connections = 3
    for number in range(10):
        clients.on_exchange(made_exchange(number, status=200 if number else 503, duration=0.004))
    clients.listener("[::]:8443")
    reloads = ReloadState(last_success=1_700_000_000.5)
    reloads.failed()
    reloads.succeeded(1_700_000_100.25)
    named = {pool.name: pool for pool in pools}
    return LbCollector(lambda: named, clients, reloads, "1.2.3", lambda backend: {"active": 2, "idle": 5})


def busy_pool(count: int = 3, name: str = "greeter") -> Pool:
    pool = made_pool(count, name)
    clock = pool.clock
    for number, backend in enumerate(pool.backends.values(), 1):
        for status in (200, 200, 404):
            pool.start(backend)
            pool.end(backend, clock.time() - 0.02 * number, None, status, clock.time() - 0.01, 7, 14)
        pool.start(backend)
        pool.end(backend, clock.time() - 1, CONNECT_FAILED)
        backend.connect.observe(0.0007)
        backend.checks["success"] += number
    pool.start(backend)
    return pool


def page(collector: LbCollector, accept: str = "") -> str:
    return b"".join(collector.page(accept)[1]).decode()


def samples(text: str, parse=parse_text) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in parse(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def value(found, name, **labels):
    return found[name, frozenset(labels.items())]


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_all_that_is_counted_is_on_the_page(accept, parse):
    pool = busy_pool(4)
    _, second, third, fourth = pool.backends.values()
    second.retries, second.ejections = 3, 2
    fourth.ejection = Ejection("ejected (5 failures in a row, for 10 s)", 110.0)
    pool.set_health(second, False)
    pool.set_weight(third, 0)
    pool.rejected[NO_BACKENDS.name] = 4
    pool.policy_errors = 2
    pool.refresh()
    pool.panic = True
    pool.waiting.most = 2
    pool.waiting.join(object())
    for _ in range(3):
        pool.tunnel_began()
    pool.tunnel_ended(2.0, None)
    pool.tunnel_ended(0.5, TUNNEL_IDLE)
    pool.tunnel_sent, pool.tunnel_received = 70, 700
    found = samples(page(made_collector(pool, made_pool(0, "empty")), accept), parse)

    def of(name, **labels):
        return value(found, name, **labels)

    assert of("lb_build_info", version="1.2.3") == 1
    assert of("lb_config_reloads_total", result="success") == 1
    assert of("lb_config_reloads_total", result="failure") == 1
    assert of("lb_config_last_reload_success_timestamp_seconds") == 1_700_000_100.25
    here = {"listener": "0.0.0.0:8080"}
    assert of("lb_client_connections", **here) == 3
    assert of("lb_client_connections", listener="[::]:8443") == 0
    assert of("lb_client_requests_total", **here, code="200") == 9
    assert of("lb_client_requests_total", **here, code="503") == 1
    assert of("lb_client_request_duration_seconds_count", **here) == 10
    assert of("lb_client_request_duration_seconds_sum", **here) == pytest.approx(0.04)
    assert of("lb_client_request_duration_seconds_bucket", **here, le="0.0025") == 0
    assert of("lb_client_request_duration_seconds_bucket", **here, le="0.005") == 10
    labels = {"pool": "greeter", "backend": "greeter-2"}
    assert of("lb_backend_up", **labels) == 0
    assert of("lb_backend_up", pool="greeter", backend="greeter-1") == 1
    assert of("lb_backend_weight", **labels) == 1
    assert of("lb_backend_in_flight", pool="greeter", backend="greeter-4") == 1
    assert of("lb_backend_connections", **labels, state="active") == 2
    assert of("lb_backend_connections", **labels, state="idle") == 5
    assert of("lb_backend_requests_total", **labels, code="200") == 2
    assert of("lb_backend_requests_total", **labels, code="404") == 1
    assert of("lb_backend_failures_total", **labels, failure="connect_failed") == 1
    assert of("lb_backend_health_checks_total", **labels, result="success") == 2
    assert of("lb_backend_health_checks_total", **labels, result="failure") == 0
    assert of("lb_backend_bytes_total", **labels, direction="sent") == 21
    assert of("lb_backend_bytes_total", **labels, direction="received") == 42
    assert of("lb_backend_request_duration_seconds_count", **labels) == 3
    assert of("lb_backend_request_duration_seconds_sum", **labels) == pytest.approx(0.12)
    assert of("lb_backend_first_byte_seconds_count", **labels) == 3
    assert of("lb_backend_connect_seconds_bucket", **labels, le="0.0005") == 0
    assert of("lb_backend_connect_seconds_bucket", **labels, le="0.001") == 1
    assert of("lb_backend_retries_total", **labels) == 3
    assert of("lb_backend_ejections_total", **labels) == 2
    states = dict.fromkeys(STATES, 0) | {"eligible": 1, "unhealthy": 1, "weight_0": 1, "ejected": 1}
    for state, count in states.items():
        assert of("lb_pool_backends", pool="greeter", state=state) == count
        assert of("lb_pool_backends", pool="empty", state=state) == 0
    assert of("lb_pool_rejected_total", pool="greeter", failure="no_backends") == 4
    assert of("lb_pool_queue_length", pool="greeter") == 1
    assert of("lb_pool_panic", pool="greeter") == 1
    assert of("lb_pool_panic", pool="empty") == 0
    assert of("lb_tunnels", pool="greeter") == 1
    assert of("lb_tunnels", pool="empty") == 0
    assert of("lb_tunnels_ended_total", pool="greeter", failure="none") == 1
    assert of("lb_tunnels_ended_total", pool="greeter", failure="tunnel_idle") == 1
    assert of("lb_tunnels_ended_total", pool="empty", failure="none") == 0
    assert of("lb_tunnel_seconds_total", pool="greeter") == 2.5
    assert of("lb_tunnel_bytes_total", pool="greeter", direction="sent") == 70
    assert of("lb_tunnel_bytes_total", pool="greeter", direction="received") == 700
    assert of("lb_policy_errors_total", pool="greeter") == 2
    assert of("process_resident_memory_bytes") > 1e6


def test_promtool_has_nothing_to_say():
    pools = busy_pool(), busy_pool(2, 'canary "\\\n ü'), made_pool(0, "empty")
    text = page(made_collector(*pools))
    checked = subprocess.run(
        [need("promtool", "prometheus"), "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_labels_are_escaped(accept, parse):
    name = 'a"b\\c\nd{}=,ü'
    found = samples(page(made_collector(busy_pool(1, name)), accept), parse)
    assert value(found, "lb_backend_up", pool=name, backend=f"{name}-1") == 1


def test_each_family_is_named_once_and_is_whole():
    text = page(made_collector(busy_pool(450), busy_pool(450, "other")))  # more than a piece
    types = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    found = samples(text)
    assert sum(name == "lb_backend_up" for name, _ in found) == 900
    for (name, labels), count in found.items():
        if name == "lb_backend_request_duration_seconds_count":
            last = found["lb_backend_request_duration_seconds_bucket", frozenset({*labels, ("le", "+Inf")})]
            assert last == count == 3


def test_the_accept_header_chooses_the_format():
    collector = made_collector(busy_pool())
    assert collector.page("")[0].startswith("text/plain; version=0.0.4")
    assert collector.page("*/*")[0].startswith("text/plain; version=0.0.4")
    assert collector.page(OPENMETRICS)[0].startswith("application/openmetrics-text; version=1.0.0")
    assert page(collector, OPENMETRICS).endswith("# EOF\n")
    assert "# EOF" not in page(collector)
    assert "# TYPE lb_client_requests counter" in page(collector, OPENMETRICS)
    assert "# TYPE lb_client_requests_total counter" in page(collector)


def test_series_go_with_their_backend_and_pools_may_be_replaced():
    pools = {"greeter": busy_pool()}
    collector = LbCollector(lambda: pools, ClientMetrics(), ReloadState(0.0), "1", lambda backend: {})
    assert 'backend="greeter-2"' in page(collector)
    pools["greeter"].update(backend.spec for backend in list(pools["greeter"].backends.values())[:1])
    assert 'backend="greeter-2"' not in page(collector)
    pools = {"new": busy_pool(1, "new")}
    text = page(collector)
    assert 'pool="new"' in text
    assert 'pool="greeter"' not in text


def test_buckets_count_up_to_their_bounds():
    pool = made_pool(1)
    [backend] = pool.backends.values()
    histogram: Histogram = backend.connect
    for seconds in (0.0005, 0.0006, 60.0, 61.0):
        histogram.observe(seconds)
    found = samples(page(made_collector(pool)))
    counts = {
        dict(labels)["le"]: count
        for (name, labels), count in found.items()
        if name == "lb_backend_connect_seconds_bucket"
    }
    assert (counts["0.0005"], counts["0.001"], counts["60.0"], counts["+Inf"]) == (1, 2, 3, 4)
    assert list(counts.values()) == sorted(counts.values())


def test_five_thousand_backends_are_scraped_in_small_pieces():
    collector = made_collector(busy_pool(5000))
    page(collector)  # imports
    began = time.process_time()
    pieces = list(collector.page("")[1])
    took = time.process_time() - began
    assert took < 2  # some 0.2 s; prometheus_client's encoder takes 5
    assert len(pieces) > 300
    assert max(map(len, pieces)) < sum(map(len, pieces)) / 50


def test_importing_it_is_cheap():
    code = "import sys, lb.observe.metrics; print('prometheus_client' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"
