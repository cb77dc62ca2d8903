"""The prober, against real servers that turn bad, hang, refuse and talk nonsense."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from lb import __version__
from lb.control.prober import BODY, HealthCheck, Prober
from lb.core.backend import ACTIVE, DISABLED, BackendSpec
from tests.control.fleet import Replica, WatchedPool, answer, replica, spec

QUICK = HealthCheck(interval=0.02, timeout=5.0, rise=2, fall=3)


@asynccontextmanager
async def probing(pool: WatchedPool, check: HealthCheck = QUICK) -> AsyncIterator[Prober]:
    prober = Prober(pool, check, random.Random(1))
    prober.start()
    try:
        yield prober
    finally:
        await prober.close()


async def asked(server: Replica, times: int) -> None:
    """Waits until so many more requests have come."""
    enough, goal = asyncio.Event(), len(server.asked) + times

    def count() -> None:
        if len(server.asked) >= goal:
            enough.set()

    server.on_asked = count
    async with asyncio.timeout(10):
        await enough.wait()


async def first_result(answer_: bytes | None, check: HealthCheck = QUICK) -> tuple[bool, str]:
    """What the first probe says of a server that answers so."""
    async with replica() as server:
        server.answer = answer_
        pool = WatchedPool(spec(server.port))
        [backend] = pool.backends.values()
        async with probing(pool, check) as prober:
            await pool.until_judged(backend)
            last = prober.last(backend)
            assert last is not None
            assert (backend.checks["success"], backend.checks["failure"]) == ((1, 0) if last.good else (0, 1))
            return last.good, last.reason


async def test_up_with_the_first_good_probe():
    async with replica() as server:
        pool = WatchedPool(spec(server.port))
        [backend] = pool.backends.values()
        assert pool.eligible == ()
        async with probing(pool, HealthCheck(interval=3600, rise=5)):
            await pool.until(backend, True)
        assert pool.eligible == (backend,)
        assert backend.checks == {"success": 1, "failure": 0}
        assert len(server.asked) == 1


async def test_falls_and_rises_by_probes_in_a_row(caplog):
    async with replica() as server:
        pool = WatchedPool(spec(server.port, "greeter-a"))
        backend = pool.backends["greeter-a"]
        with caplog.at_level(logging.INFO, "lb.health"):
            async with probing(pool):
                await pool.until(backend, True)
                server.answer = answer(500)
                before = backend.checks["failure"]
                await pool.until(backend, False)
                assert backend.checks["failure"] - before == QUICK.fall
                server.answer = answer(204, b"")
                before = backend.checks["success"]
                await pool.until(backend, True)
                assert backend.checks["success"] - before == QUICK.rise
        assert caplog.messages == [
            "pool greeter: backend greeter-a is up after 1 good probe: status 200",
            "pool greeter: backend greeter-a is down after 3 failed probes: status 500",
            "pool greeter: backend greeter-a is up after 2 good probes: status 204",
        ]


async def test_a_single_bad_probe_changes_nothing():
    async with replica() as server:
        pool = WatchedPool(spec(server.port))
        [backend] = pool.backends.values()
        async with probing(pool, HealthCheck(interval=0.02, fall=2)):
            await pool.until(backend, True)
            for _ in range(3):
                bad_before = backend.checks["failure"]
                server.answer = answer(503)
                await asked(server, 1)
                server.answer = answer(200)
                await asked(server, 2)
                assert backend.checks["failure"] - bad_before == 1
                assert backend.healthy


async def test_one_that_is_disabled_is_left_alone_and_judged_anew_afterwards():
    async with replica() as server:
        pool = WatchedPool(spec(server.port))
        [backend] = pool.backends.values()
        async with probing(pool):
            await pool.until(backend, True)
            pool.set_state(backend, DISABLED)
            await asyncio.sleep(3 * QUICK.interval)  # for a probe that is on its way
            probes = len(server.asked)
            server.answer = answer(503)
            await asyncio.sleep(5 * QUICK.interval)
            assert len(server.asked) == probes
            failures = backend.checks["failure"]
            pool.set_state(backend, ACTIVE)
            await pool.until(backend, False)
            assert backend.checks["failure"] == failures + 1


async def test_what_a_probe_asks():
    async with replica() as server:
        pool = WatchedPool(spec(server.port))
        [backend] = pool.backends.values()
        async with probing(pool, HealthCheck(interval=0.02, path="/healthz?deep=%2F1", host="greeter.test")):
            await pool.until(backend, True)
            await asked(server, 2)
    assert server.connections == len(server.asked) >= 3  # a new connection each time
    head = server.asked[0].split(b"\r\n")
    assert head[0] == b"GET /healthz?deep=%2F1 HTTP/1.1"
    assert b"Host: greeter.test" in head
    assert b"User-Agent: lb-health-check/" + __version__.encode() in head
    assert b"connection: close" in [line.lower() for line in head]


async def test_the_host_is_the_address_unless_told():
    async with replica() as server:
        pool = WatchedPool(spec(server.port))
        async with probing(pool):
            await pool.until(next(iter(pool.backends.values())), True)
        assert b"\r\nHost: 127.0.0.1:%d\r\n" % server.port in server.asked[0]


@pytest.mark.parametrize(
    ("said", "good", "reason"),
    [
        (answer(200), True, "status 200"),
        (answer(399), True, "status 399"),
        (answer(400), False, "status 400"),
        (answer(500), False, "status 500"),
        (b"garbage\r\n\r\n", False, "not well-formed HTTP"),
        (answer(200, b"x" * (3 * BODY)), True, "status 200"),
    ],
)
async def test_what_counts_as_good(said, good, reason):
    assert await first_result(said) == (good, reason)


async def test_a_redirect_is_not_followed():
    async with replica() as elsewhere:
        moved = answer(302, b"", b"Location: http://127.0.0.1:%d/" % elsewhere.port)
        assert await first_result(moved) == (True, "status 302")
        assert await first_result(moved, HealthCheck(expect=(200,))) == (False, "status 302")
        assert elsewhere.connections == 0


@pytest.mark.parametrize("said", [None, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"HTTP/1.1 2"])
async def test_one_that_hangs_is_bad(said):
    assert await first_result(said, HealthCheck(timeout=0.05)) == (False, "timed out after 0.05 s")


async def test_one_that_refuses_is_bad_and_back_when_it_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        port = taken.getsockname()[1]
        pool = WatchedPool(spec(port))
        [backend] = pool.backends.values()
        async with probing(pool, HealthCheck(type="tcp", interval=0.02, rise=1)) as prober:
            await pool.until_judged(backend)
            assert prober.last(backend).reason == "connection refused"
            assert not backend.healthy
            taken.listen()
            await pool.until(backend, True)
            assert prober.last(backend).reason == "connected"


async def test_tcp_is_content_with_a_connection():
    async with replica() as server:
        server.answer = None
        pool = WatchedPool(spec(server.port))
        [backend] = pool.backends.values()
        async with probing(pool, HealthCheck(type="tcp", interval=3600)):
            await pool.until(backend, True)
        assert server.asked == []


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_a_name_that_cant_be_resolved_is_bad(kind):
    pool = WatchedPool(BackendSpec("nowhere", "nowhere.invalid", 80))
    [backend] = pool.backends.values()
    async with probing(pool, HealthCheck(type=kind, interval=0.02, timeout=20)) as prober:
        await pool.until_judged(backend)
        assert prober.last(backend).reason == "its name can't be resolved"


async def test_a_probe_that_cant_be_made_doesnt_end_the_probing(caplog):
    async with replica() as server:
        pool = WatchedPool(spec(server.port))
        [backend] = pool.backends.values()
        async with probing(pool) as prober:
            await pool.until(backend, True)
            right, prober._headers = prober._headers, {"X": 1}  # no header value
            await pool.until(backend, False)
            assert "the probe failed: TypeError" in prober.last(backend).reason
            prober._headers = right
            await pool.until(backend, True)
    assert any(record.exc_info for record in caplog.records)


async def test_sync_follows_the_set():
    async with replica() as first, replica() as second:
        pool = WatchedPool(spec(first.port))
        [old] = pool.backends.values()
        async with probing(pool) as prober:
            await pool.until(old, True)
            pool.update([spec(second.port)])
            prober.sync()
            [new] = pool.backends.values()
            await pool.until(new, True)
            assert prober.last(old) is None
            settled = first.connections
            await asked(second, 5)
            assert first.connections == settled


async def test_an_id_that_moves_is_judged_anew():
    async with replica() as good, replica() as bad:
        bad.answer = answer(500)
        pool = WatchedPool(spec(good.port, "a"))
        async with probing(pool) as prober:
            await pool.until(pool.backends["a"], True)
            pool.update([spec(bad.port, "a")])
            prober.sync()
            moved = pool.backends["a"]
            await asked(bad, 2)
            assert not moved.healthy
            assert moved.checks["success"] == 0


async def test_who_takes_over_knows_who_was_up():
    async with replica() as server:
        pool = WatchedPool(spec(server.port))
        [backend] = pool.backends.values()
        async with probing(pool):
            await pool.until(backend, True)
        server.answer = answer(500)
        failed = backend.checks["failure"]
        async with probing(pool):
            await pool.until(backend, False)
        assert backend.checks["failure"] - failed == QUICK.fall  # not at the first one


async def test_close_ends_every_task():
    before = asyncio.all_tasks()
    async with replica() as server:
        server.answer = None
        pool = WatchedPool(spec(server.port), *(spec(1, f"closed-{number}") for number in range(20)))
        async with probing(pool):
            await asked(server, 1)
            assert len(asyncio.all_tasks() - before) >= 21
        left = {task for task in asyncio.all_tasks() - before if "_run" in repr(task)}
        assert left == set()


async def test_the_first_probes_of_a_large_pool_are_spread():
    pool = WatchedPool(*(spec(1, f"backend-{number}") for number in range(500)))
    async with probing(pool, HealthCheck(type="tcp", interval=3600)) as prober:
        await pool.until_judged(*pool.backends.values())
        began = sorted(prober.last(backend).at for backend in pool.backends.values())
    assert began[-1] - began[0] > 0.25  # 500 at 1,000 a second


async def test_intervals_differ_by_a_tenth():
    async with replica() as server:
        pool = WatchedPool(spec(server.port))
        [backend] = pool.backends.values()
        async with probing(pool, HealthCheck(interval=0.1)) as prober:
            began = set()
            for _ in range(6):
                await asked(server, 1)
                last = prober.last(backend)  # of the probe before this one
                if last is not None:
                    began.add(last.at)
        gaps = [later - earlier for earlier, later in pairwise(sorted(began))]
        assert len(gaps) >= 4
        assert min(gaps) >= 0.09
        assert len({round(gap, 4) for gap in gaps}) > 1
