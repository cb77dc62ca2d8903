"""The store in a real etcd: shared, killed, restarted, compacted."""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from lb.control.registry.etcd import PREFIX, EtcdStore
from lb.control.registry.etcd_client import Login
from lb.control.registry.model import CRITICAL, PASSING, State
from lb.control.registry.registry import Registry
from lb.control.registry.store import Unavailable
from tests.control.registry.scene import Etcd, checked, free_port, instance, opened, running_etcd

PASS = {"service:a": State(PASSING)}


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with running_etcd(tmp_path) as etcd:
        yield etcd


def call(etcd: Etcd, path: str, body: Any) -> Any:
    request = urllib.request.Request(f"{etcd.url}/v3/{path}", json.dumps(body).encode())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=5) as answer:
        return json.load(answer)


async def shows(registry: Registry, found: Callable[[Registry], object], what: str, within: float) -> None:
    """Waits until the table does."""
    changed = asyncio.Event()
    stop = registry.table.listen(lambda *_: changed.set())
    try:
        async with asyncio.timeout(within):
            while not found(registry):
                changed.clear()
                await changed.wait()
    except TimeoutError:
        raise AssertionError(f"{what} did not show within {within} s: {registry.table.entries}") from None
    finally:
        stop()


def there(*names: str) -> Callable[[Registry], bool]:
    return lambda registry: sorted(registry.table.entries) == sorted(names)


def status(name: str, wanted: str) -> Callable[[Registry], bool]:
    return lambda registry: name in registry.table.entries and registry.table.entries[name].status == wanted


async def test_two_balancers_share_one_table(etcd: Etcd) -> None:
    async with opened(EtcdStore([etcd.url])) as one, opened(EtcdStore([etcd.url])) as two:
        await one.register(checked("a"), {"service:a": State(CRITICAL)})
        assert one.table.entries["a"].status == CRITICAL  # who has written it sees it at once
        await shows(two, there("a"), "the registration", 1.0)
        await two.report("service:a", State(PASSING, "well"))
        await shows(one, status("a", PASSING), "the heartbeat", 1.0)
        await one.set_maintenance("a", True, "disk")
        await shows(two, status("a", CRITICAL), "the maintenance", 1.0)
        await two.register(checked("a", notes="anew"), PASS)
        await two.set_maintenance("a", False, "")
        await shows(one, status("a", PASSING), "the end of it", 1.0)
        await two.deregister("a")
        await shows(one, there(), "the leaving", 1.0)


async def test_heartbeats_may_go_to_any_and_when_they_stop_it_is_out(etcd: Etcd) -> None:
    async with opened(EtcdStore([etcd.url])) as one, opened(EtcdStore([etcd.url])) as two:
        await one.register(checked("a", 2.0, deregister_after=1.0), PASS)
        await shows(two, status("a", PASSING), "the registration", 1.0)
        for number in range(8):
            await (one, two)[number % 2].report("service:a", State(PASSING))
            await asyncio.sleep(0.5)
            assert one.table.entries["a"].status == PASSING
        await shows(two, status("a", CRITICAL), "the end of the lease", 10.0)
        await shows(one, there(), "the deregistration", 10.0)


async def test_killed_and_started_again(etcd: Etcd) -> None:
    async with opened(EtcdStore([etcd.url])) as registry:
        await registry.register(instance("a"), {})
        etcd.kill()
        with pytest.raises(Unavailable, match="etcd does not answer"):
            await registry.register(instance("b"), {})
        assert list(registry.table.entries) == ["a"]  # as it was
        etcd.start()
        async with opened(EtcdStore([etcd.url])) as other:
            assert list(other.table.entries) == ["a"]
            await other.register(instance("c"), {})
            await shows(registry, there("a", "c"), "what came after", 10.0)


async def test_compacted_while_we_were_away(etcd: Etcd) -> None:
    async with opened(EtcdStore([etcd.url])) as registry:
        await registry.register(instance("a"), {})
        await registry.register(instance("b"), {})
        # Away, as if the network were: nothing comes, and then the watch breaks off.
        store = registry._store
        assert isinstance(store, EtcdStore)
        assert store._watcher is not None
        store._watcher.cancel()
        async with opened(EtcdStore([etcd.url])) as other:
            await other.deregister("a")
            for port in range(20):
                await other.register(instance("c", port=port), {})
        revision = call(etcd, "kv/range", {"key": b64encode(b"x").decode()})["header"]["revision"]
        call(etcd, "kv/compaction", {"revision": revision, "physical": True})
        store._watcher = asyncio.ensure_future(store._follow())
        await shows(registry, there("b", "c"), "the table of now", 10.0)
        assert registry.table.entries["c"].instance.port == 19


async def test_the_next_member_answers_where_one_is_gone(etcd: Etcd) -> None:
    async with opened(EtcdStore([f"http://127.0.0.1:{free_port()}", etcd.url])) as registry:
        await registry.register(checked("a"), PASS)
        assert registry.table.entries["a"].status == PASSING


async def test_without_etcd_it_starts_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with opened(EtcdStore([url])) as registry:
        assert "etcd is away" in caplog.text
        with pytest.raises(Unavailable):
            await registry.register(instance("a"), {})


async def test_what_cannot_be_read_is_passed_over(etcd: Etcd, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(EtcdStore([etcd.url])) as registry:
        for key in ("instances/x", "states/x", "states/a/b"):
            value = b64encode(b"{}").decode()
            call(etcd, "kv/put", {"key": b64encode((PREFIX + key).encode()).decode(), "value": value})
        await registry.register(instance("a"), {})
        await shows(registry, there("a"), "the registration", 1.0)
    async with opened(EtcdStore([etcd.url])) as registry:
        assert list(registry.table.entries) == ["a"]
    assert "can't be read" in caplog.text


def ask_for_users(etcd: Etcd) -> None:
    """From now on etcd asks who it is. `lb` may do what the registry needs, `stranger` nothing."""
    for name, password in (("root", "r"), ("lb", "s3cret"), ("stranger", "x")):
        call(etcd, "auth/user/add", {"name": name, "password": password})
    for role in ("root", "registry"):
        call(etcd, "auth/role/add", {"name": role})
    keys = {"key": b64encode(PREFIX.encode()).decode(), "range_end": b64encode(b"/lb/registry0").decode()}
    call(etcd, "auth/role/grant", {"name": "registry", "perm": {"permType": "READWRITE", **keys}})
    call(etcd, "auth/user/grant", {"user": "root", "role": "root"})
    call(etcd, "auth/user/grant", {"user": "lb", "role": "registry"})
    call(etcd, "auth/enable", {})


async def test_as_a_user_whose_token_is_forgotten_now_and_then(etcd: Etcd) -> None:
    ask_for_users(etcd)
    passwords = ["s3cret"]
    stores = [EtcdStore([etcd.url], Login("lb", lambda: passwords[0])) for _ in range(2)]
    async with opened(stores[0]) as one, opened(stores[1]) as two:
        await one.register(checked("a"), PASS)
        await shows(two, there("a"), "a", 5)
        etcd.kill()
        etcd.start()  # which knows no token any more
        async with asyncio.timeout(20):
            while True:
                try:
                    await two.report("service:a", State(CRITICAL))
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
        await shows(one, status("a", CRITICAL), "its end", 20)
        assert (one.trouble, two.trouble) == ("", "")


@pytest.mark.parametrize(
    ("login", "words"),
    [
        (None, "etcd asks for a user: store:"),
        (Login("lb", lambda: "wrong"), "authentication failed, invalid user ID or password"),
        (
            Login("stranger", lambda: "x"),
            "a role that may read and write what begins with /lb/registry/",
        ),
    ],
)
async def test_as_nobody_it_says_what_is_missing(etcd: Etcd, login: Login | None, words: str) -> None:
    ask_for_users(etcd)
    async with opened(EtcdStore([etcd.url], login)) as registry:
        assert words in registry.trouble
        with pytest.raises(Unavailable, match=words):
            await registry.register(instance("a"), {})


async def test_over_tls_with_a_ca_of_its_own(tmp_path: Path) -> None:
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(files[0])
    certificate.private_key_pem.write_to_path(files[1])
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")

    def trusting() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))

    with running_etcd(tmp_path, files) as etcd:
        async with opened(EtcdStore([etcd.url], tls=trusting)) as registry:
            await registry.register(instance("a"), {})
            assert list(registry.table.entries) == ["a"]
        async with opened(EtcdStore([etcd.url])) as registry:
            assert "certificate" in registry.trouble.lower()
