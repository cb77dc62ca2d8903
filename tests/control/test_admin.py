"""The admin API over a real socket."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from lb.control.admin import BODY_AT_MOST, AdminServer, build_admin
from lb.control.all_records import OwnRecords
from lb.control.prober import HealthCheck, Prober
from lb.control.state import AdminState, ReloadResult
from lb.core.backend import BackendSpec, Ejection
from lb.core.failure import NO_ROUTE, RESPONSE_TIMEOUT
from lb.core.rules import OutlierRules, PoolRules
from lb.observe.clients import ClientMetrics
from lb.observe.metrics import LbCollector, ReloadState
from lb.observe.records import RequestRecords
from lb.observe.render import as_dict
from tests.control.fleet import WatchedPool, replica, spec
from tests.observe.made import EPOCH, made_attempt, made_exchange, made_pool

Client = TestClient[Any, Any]


@pytest.fixture
def records() -> RequestRecords:
    return RequestRecords(100)


@pytest.fixture
def state(records: RequestRecords) -> AdminState:
    state = AdminState(
        version="1.2.3",
        epoch=EPOCH,
        pools={"greeter": made_pool(3), "other": made_pool(1, "other", "round_robin")},
        metrics=LbCollector(
            lambda: state.pools, ClientMetrics(), ReloadState(0.0), "1.2.3", lambda backend: {"active": 1}
        ),
        records=OwnRecords(records, EPOCH),
        config=lambda: {"workers": 1, "pools": ["greeter"]},
    )
    return state


@pytest.fixture
async def client(state: AdminState) -> AsyncIterator[Client]:
    async with TestClient(TestServer(build_admin(state))) as client:
        yield client


async def got(client: Client, path: str, status: int = 200, **headers: str) -> Any:
    async with client.get(path, headers=headers) as response:
        assert response.status == status, await response.text()
        assert response.content_type == "application/json"
        return await response.json()


async def changed(client: Client, path: str, body: Any, status: int = 200) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body)
    async with client.patch(path, data=data, headers={"Content-Type": "application/json"}) as response:
        assert response.status == status, await response.text()
        return await response.json()


# --- liveness and readiness ---


async def test_livez(client):
    async with client.get("/livez") as response:
        assert (response.status, await response.text()) == (200, "ok\n")
        assert response.headers["Server"] == "lb"


async def test_ready_while_any_pool_can_serve(client, state):
    assert await got(client, "/readyz") == {
        "ready": True,
        "reasons": [],
        "pools": {"greeter": {"eligible": 3, "total": 3}, "other": {"eligible": 1, "total": 1}},
    }
    for backend in state.pools["greeter"].backends.values():
        state.pools["greeter"].set_health(backend, False)
    body = await got(client, "/readyz")
    assert body["pools"]["greeter"] == {"eligible": 0, "total": 3}
    other = state.pools["other"]
    other.set_state(other.backends["other-1"], "disabled")
    body = await got(client, "/readyz", 503)
    assert (body["ready"], body["reasons"]) == (False, ["no pool has an eligible backend"])


async def test_not_ready_while_draining(client, state):
    state.draining = lambda: True
    body = await got(client, "/readyz", 503)
    assert body["reasons"] == ["draining"]
    assert (await got(client, "/api/pools"))["draining"] is True
    async with client.get("/livez") as response:
        assert response.status == 200


# --- metrics ---


async def test_metrics_by_accept(client):
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await response.text()
    assert 'lb_backend_up{pool="greeter",backend="greeter-1"} 1\n' in text
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with client.get("/metrics", headers=accept) as response:
        assert response.content_type == "application/openmetrics-text"
        assert (await response.text()).endswith("# EOF\n")
    async with client.head("/metrics") as response:
        assert (response.status, await response.read()) == (200, b"")


async def test_others_get_a_turn_between_the_pieces_of_a_page(client, state, monkeypatch):
    turns, at_piece = 0, []

    def pieces() -> Iterator[bytes]:
        for number in range(50):
            at_piece.append(turns)
            yield b"lb_number %d\n" % number

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    monkeypatch.setattr(state.metrics, "page", lambda accept: ("text/plain", pieces()))
    task = asyncio.create_task(other())
    async with client.get("/metrics") as response:
        assert (await response.text()).endswith("lb_number 49\n")
    task.cancel()
    assert len(set(at_piece)) == 50


# --- pools ---


async def test_pools_say_everything_of_their_backends(client, state):
    pool = state.pools["greeter"]
    first, second, _ = pool.backends.values()
    for status in (200, 200, 503):
        pool.start(first)
        pool.end(first, pool.clock.time() - 0.25, None, status, pool.clock.time() - 0.125, 10, 20)
    pool.start(first)
    pool.start(second)
    pool.end(second, pool.clock.time(), RESPONSE_TIMEOUT)
    pool.set_health(second, False)
    body = await got(client, "/api/pools")
    assert body["version"] == "1.2.3"
    greeter, other = body["pools"]
    assert (other["name"], other["policy"]) == ("other", "round_robin")
    backends = greeter.pop("backends")
    assert greeter == {
        "name": "greeter",
        "policy": "p2c",
        "policy_errors": 0,
        "shadow": None,
        "eligible": 2,
        "total": 3,
        "states": {
            "eligible": 2,
            "unhealthy": 1,
            "ejected": 0,
            "standby": 0,
            "draining": 0,
            "disabled": 0,
            "weight_0": 0,
        },
        "panic": None,
        "in_flight": 1,
        "waiting": 0,
        "tunnels": 0,
        "limits": {"requests": None, "requests_per_backend": None, "queue": 0},
        "rejected": {},
        "sources": [],
    }
    assert backends[0] == {
        "id": "greeter-1",
        "address": "10.0.0.1:9000",
        "source": "static",
        "weight": 1,
        "share": 1.0,
        "tier": 0,
        "zone": None,
        "state": "active",
        "healthy": True,
        "excluded": None,
        "ejection": None,
        "in_flight": 1,
        "requests": {"200": 2, "503": 1},
        "failures": {},
        "retries": 0,
        "ejections": 0,
        "checks": {"success": 0, "failure": 0},
        "last_probe": None,
        "sent": 30,
        "received": 60,
        "duration": {"count": 3, "mean_ms": 250.0},
        "first_byte": {"count": 3, "mean_ms": 125.0},
        "connect": {"count": 0, "mean_ms": None},
    }
    assert (backends[1]["excluded"], backends[1]["failures"]) == ("unhealthy", {"response_timeout": 1})
    assert await got(client, "/api/pools/greeter") == {**greeter, "backends": backends}


async def test_who_is_out_is_shown_with_the_time_left(client, state):
    pool = state.pools["greeter"]
    pool.rules = PoolRules(outliers=OutlierRules(), panic_threshold=0.9)
    backend = pool.backends["greeter-1"]
    backend.ejection = Ejection("ejected (5 failures in a row, for 10 s)", pool.clock.time() + 7.25)
    pool.refresh()
    greeter = await got(client, "/api/pools/greeter")
    assert greeter["panic"] == "only 2 of 3 can be used, less than 90%"
    assert greeter["states"]["ejected"] == 1
    shown = greeter["backends"][0]
    assert shown["excluded"] == "ejected (5 failures in a row, for 10 s)"
    assert shown["ejection"] == {"reason": shown["excluded"], "left_ms": 7250, "tried": False}


async def test_the_last_probe_is_shown(client, state):
    async with replica() as server:
        pool = WatchedPool(spec(server.port, "a"))
        prober = Prober(pool, HealthCheck(interval=3600))
        state.pools, state.probers = {"greeter": pool}, {"greeter": prober}
        state.epoch = time.time() - time.monotonic()
        prober.start()
        await pool.until(pool.backends["a"], True)
        [backend] = (await got(client, "/api/pools/greeter"))["backends"]
        await prober.close()
    probe = backend["last_probe"]
    assert (probe["good"], probe["reason"]) == (True, "status 200")
    assert probe["time"][:13] == time.strftime("%Y-%m-%dT%H", time.gmtime())
    assert backend["checks"] == {"success": 1, "failure": 0}


async def test_weight_and_state_are_changed(client, state):
    pool = state.pools["greeter"]
    backend = pool.backends["greeter-2"]
    backend.own = 7
    path = "/api/pools/greeter/backends/greeter-2"
    body = await changed(client, path, {"weight": 3})
    assert (body["weight"], body["state"], body["in_flight"]) == (3, "active", 7)
    assert backend.weight == 3
    body = await changed(client, path, {"state": "draining"})
    assert (body["state"], body["excluded"]) == ("draining", "draining")
    assert backend not in pool.eligible
    body = await changed(client, path, {"state": "active", "weight": 5})
    assert (body["state"], body["excluded"], body["weight"]) == ("active", None, 5)
    assert backend in pool.eligible
    # The pool knows states by identity: what came as JSON must not become a state that it doesn't know.
    assert "greeter-2" in {pool.pick(None).id for _ in range(50)}
    assert pool.policy_errors == 0
    body = await changed(client, path, {"weight": 65535})
    assert body["weight"] == 65535
    body = await changed(client, path, {"weight": 0})
    assert body["excluded"] == "weight 0"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"weight": -1}, "weight: must be a whole number from 0 to 65535"),
        ({"weight": 65536}, "weight: must be"),
        ({"weight": True}, "weight: must be"),
        ({"weight": 1.0}, "weight: must be"),
        ({"weight": "3"}, "weight: must be"),
        ({"weight": None}, "weight: must be"),
        ({"weight": 10**30}, "weight: must be"),
        ({"state": "drainig"}, "state: must be active, draining or disabled (did you mean draining?)"),
        ({"state": ["active"]}, "state: must be"),
        ({"state": True}, "state: must be"),
        ({"state": None}, "state: must be"),
        ({"weight": 5, "state": "gone"}, "state: must be"),
        ({"state": "disabled", "weight": 1.5}, "weight: must be"),
        ({"weigth": 3}, "weigth: is not a thing to change (did you mean weight?)"),
        ({"weight": 3, "tier": 1}, "tier: is not a thing to change"),
        ({}, "must have a weight or a state"),
        ([], "must be a JSON object"),
        (3, "must be a JSON object"),
        (b"{weight: 3}", "not JSON"),
        (b'{"weight": 3', "not JSON"),
        (b'{"weight": 3, "weight": 4}', "a key is there twice"),
        (b'{"weight": NaN}', "weight: must be"),
        (b'{"weight": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 10000, "nested too deep"),
    ],
)
async def test_a_wrong_change_changes_nothing(client, state, body, said):
    backend = state.pools["greeter"].backends["greeter-1"]
    answer = await changed(client, "/api/pools/greeter/backends/greeter-1", body, 400)
    assert said in answer["error"]
    assert (backend.weight, backend.state) == (1, "active")


async def test_too_large_a_body_is_refused(client):
    body = json.dumps({"weight": 3}).encode() + b" " * BODY_AT_MOST
    answer = await changed(client, "/api/pools/greeter/backends/greeter-1", body, 413)
    assert "too large" in answer["error"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_change_must_be_declared_as_json(client, state, kind):
    path = "/api/pools/greeter/backends/greeter-1"
    async with client.patch(path, data=b'{"weight": 3}', headers={"Content-Type": kind}) as response:
        assert response.status == 415
        assert "application/json" in (await response.json())["error"]
    assert state.pools["greeter"].backends["greeter-1"].weight == 1


async def test_who_isnt_there_is_404_with_a_suggestion(client):
    async def missing(path: str) -> str:
        return (await changed(client, path, {"weight": 3}, 404))["error"]

    assert await missing("/api/pools/greter/backends/greeter-1") == (
        "No pool is called greter (did you mean greeter?)"
    )
    assert await missing("/api/pools/greeter/backends/greter-2") == (
        "No backend of pool greeter is called greter-2 (did you mean greeter-2?)"
    )
    assert await missing("/api/pools/xyz/backends/greeter-1") == (
        "No pool is called xyz (there is greeter, other)"
    )
    assert "did you mean other?" in (await got(client, "/api/pools/othr", 404))["error"]
    assert (await got(client, "/api/nothing", 404))["error"] == "There is nothing at /api/nothing"


async def test_ids_of_any_form_can_be_named(client, state):
    pool = state.pools["greeter"]
    for name in ("[::1]:9001", "a/b", "ü %?#"):
        pool.update([BackendSpec(name, "::1", 9001)])
        body = await changed(client, f"/api/pools/greeter/backends/{quote(name, safe='')}", {"weight": 9})
        assert (body["id"], body["weight"]) == (name, 9)
        assert body["address"] == "[::1]:9001"


async def test_a_wrong_method_is_told_the_right_ones(client):
    async with client.delete("/api/pools") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"
        assert (await response.json())["error"] == "/api/pools takes GET and HEAD only"


async def test_a_reload_replaces_the_pools(client, state):
    state.pools = {"new": made_pool(1, "new")}
    assert [pool["name"] for pool in (await got(client, "/api/pools"))["pools"]] == ["new"]
    async with client.get("/metrics") as response:
        text = await response.text()
    assert 'pool="new"' in text
    assert 'pool="greeter"' not in text


# --- request records ---


def filled(state: AdminState, records: RequestRecords) -> Sequence[Any]:
    pool = state.pools["greeter"]
    good = made_exchange(1, [made_attempt(pool)])
    slow = made_exchange(2, [made_attempt(pool)], duration=2.5)
    late = made_exchange(3, [made_attempt(pool, failure=RESPONSE_TIMEOUT)], RESPONSE_TIMEOUT, status=504)
    lost = made_exchange(4, [], NO_ROUTE, status=404)
    lost.pool = ""
    for exchange in (good, slow, late, lost):
        records.on_exchange(exchange)
    return good, slow, late, lost


async def test_a_request_is_found_by_its_id(client, state, records):
    good, *_ = filled(state, records)
    assert await got(client, f"/api/requests/{good.id.decode()}") == as_dict(good, EPOCH)
    good.id = b"given/by=a+proxy~"
    records.on_exchange(good)
    assert (await got(client, "/api/requests/given%2Fby=a+proxy~"))["id"] == "given/by=a+proxy~"


async def test_a_request_in_words(client, state, records):
    good, *_ = filled(state, records)
    path = f"/api/requests/{good.id.decode()}"
    async with client.get(path, headers={"Accept": "text/plain"}) as response:
        assert response.content_type == "text/plain"
        assert (await response.text()).startswith(f"Request {good.id.decode()}\n")


async def test_an_unknown_request_is_404_with_a_hint(client):
    error = (await got(client, "/api/requests/018bcfe5-0000", 404))["error"]
    assert "018bcfe5-0000" in error
    assert "the last 100 are kept" in error


async def test_searching(client, state, records):
    good, slow, late, lost = (exchange.id.decode() for exchange in filled(state, records))

    async def found(query: str) -> list[str]:
        body = await got(client, f"/api/requests{query}")
        assert body["held"] == 4
        return [record["id"] for record in body["requests"]]

    assert await found("") == [lost, late, slow, good]
    assert await found("?limit=2") == [lost, late]
    assert await found("?status=504") == [late]
    assert await found("?status=2xx") == [slow, good]
    assert await found("?failure=no_route") == [lost]
    assert await found("?min_duration=2.5s") == [slow]
    assert await found("?min_duration=2400ms") == [slow]
    assert await found("?min_duration=2") == [slow]
    assert await found("?min_duration=1m") == []
    backend = records.find(slow).attempts[0].backend.id
    assert slow in await found(f"?backend={backend}&status=200")
    assert await found("?backend=nobody") == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("status=2000", "status: must be"),
        ("status=abc", "status: must be"),
        ("status=", "status: must be"),
        ("status=٢٠٠", "status: must be"),
        ("failure=no_rout", "did you mean no_route?"),
        ("min_duration=fast", "min_duration: must be"),
        ("min_duration=-1s", "min_duration: must be"),
        ("min_duration=nan", "min_duration: must be"),
        ("limit=0", "limit: must be"),
        ("limit=1001", "limit: must be"),
        ("limit=1e2", "limit: must be"),
        ("limit=-1", "limit: must be"),
        ("backand=a", "did you mean backend?"),
        ("limit=1&limit=2", "limit: is there twice"),
    ],
)
async def test_a_wrong_search_is_told_what_is_wrong(client, query, said):
    assert said in (await got(client, f"/api/requests?{query}", 400))["error"]


async def test_records_that_are_off(client, state):
    state.records = None
    for path in ("/api/requests", "/api/requests/018bcfe5-0000"):
        assert "turned off" in (await got(client, path, 404))["error"]


# --- configuration ---


async def test_the_running_configuration(client):
    assert await got(client, "/api/config") == {"workers": 1, "pools": ["greeter"]}


async def test_no_reload_where_the_app_cant(client):
    async with client.post("/api/reload") as response:
        assert response.status == 404


async def test_reload(state):
    problems: list[str] = []

    async def reload() -> ReloadResult:
        return ReloadResult(problems, ["drain.timeout"], ["workers is still 1"])

    state.reload = reload
    async with TestClient(TestServer(build_admin(state))) as client:
        async with client.post("/api/reload") as response:
            assert response.status == 200
            assert await response.json() == {
                "reloaded": True,
                "changed": ["drain.timeout"],
                "kept": ["workers is still 1"],
            }
        problems.append("lb.yaml:3:5: unknown key")
        async with client.post("/api/reload", json={}) as response:
            assert response.status == 422
            body = await response.json()
            assert body["problems"] == problems
            assert "the old one stays" in body["error"]
        async with client.post("/api/reload", data=b"x") as response:
            assert response.status == 415


async def test_what_nobody_expected_is_500_and_in_the_log(client, state, caplog):
    def broken() -> Any:
        raise RuntimeError("secret detail")

    state.config = broken
    body = await got(client, "/api/config", 500)
    assert body == {"error": "The admin API failed; the log says more"}
    assert "secret detail" in caplog.text


# --- who may ---


async def test_with_a_token_all_but_the_probes_need_it(client, state):
    state.token = "s3cret-ü"
    for path in ("/livez", "/readyz"):
        async with client.get(path) as response:
            assert response.status == 200
    for path in ("/", "/metrics", "/api/pools", "/api/config", "/api/requests", "/nothing"):
        async with client.get(path) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            assert "Bearer" in (await response.json())["error"]
    body = {"state": "disabled"}
    async with client.patch("/api/pools/greeter/backends/greeter-1", json=body) as response:
        assert response.status == 401
    assert state.pools["greeter"].backends["greeter-1"].state == "active"
    for wrong in ("Bearer wrong", "Bearer ", "s3cret-ü", "Basic s3cret-ü", "Bearer s3cret-üx"):
        await got(client, "/api/pools", 401, Authorization=wrong)
    for right in ("Bearer s3cret-ü", "bearer s3cret-ü"):
        await got(client, "/api/pools", Authorization=right)
    # A Host of any name will do then: others than this machine may come.
    await got(client, "/api/pools", Authorization="Bearer s3cret-ü", Host="lb.example.com")


async def test_the_dashboard_asks_for_the_token(client, state):
    state.token = "s3cret"
    async with client.get("/", headers={"Accept": "text/html,*/*"}) as response:
        assert response.status == 401
        assert response.content_type == "text/html"
        assert "admin token" in await response.text()
    await got(client, "/api/pools", 401, Accept="text/html")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9901", "127.0.0.1:1", "127.8.9.1", "[::1]:9901", "[::1]"]
)
async def test_names_of_this_machine_are_fine(client, host):
    await got(client, "/api/pools", Host=host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "10.0.0.1:9901", "127.0.0.1.nip.io", "", "[::2]", "[", "a@b"],
)
async def test_a_foreign_name_is_refused(client, state, host):
    for path in ("/api/pools", "/livez", "/"):
        body = await got(client, path, 421, Host=host)
        assert "localhost" in body["error"]


async def test_a_foreign_page_cant_change_anything(client, state):
    headers = {"Origin": "http://evil.example"}
    path = "/api/pools/greeter/backends/greeter-1"
    async with client.patch(path, json={"weight": 5}, headers=headers) as response:
        assert response.status == 403
    assert state.pools["greeter"].backends["greeter-1"].weight == 1
    here = {"Origin": f"http://{client.host}:{client.port}"}
    async with client.patch(path, json={"weight": 5}, headers=here) as response:
        assert response.status == 200
        assert not [name for name in response.headers if name.lower().startswith("access-control")]


# --- the dashboard ---


async def test_the_dashboard_is_one_page_without_anything_from_outside(client):
    async with client.get("/") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        policy = response.headers["Content-Security-Policy"]
        html = await response.text()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert len(re.findall("'sha256-[A-Za-z0-9+/]{43}='", policy)) == 2
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(| on\w+=| style=", html)
    assert html.count("<script>") == html.count("<style>") == 1


# --- the server ---


async def test_the_server_accepts_on_sockets_that_stay_ours(state):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = AdminServer(state, [sock])
        await server.start()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/livez"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.status == 200
        await server.close()
        assert sock.fileno() >= 0
