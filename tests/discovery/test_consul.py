"""Backends by Consul's health API: blocking queries, and agents that are down, slow, broken or begin anew."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme
from aiohttp import web

from lb.core.backend import BackendSpec
from lb.discovery import consul as module
from lb.discovery.base import SourceError
from lb.discovery.consul import ConsulSource, Service
from tests.control.waiting import until
from tests.discovery.consul import Consul, consul, instance


@pytest_asyncio.fixture
async def agent() -> AsyncIterator[tuple[Consul, str]]:
    async with consul() as found:
        yield found


@contextlib.asynccontextmanager
async def watching(url: str, wait: float = 5.0, **more: Any) -> AsyncIterator[Any]:
    """Answers with the next set, each time that it is called."""
    source = ConsulSource(Service(url, "greeter", **more), wait=wait)
    async with contextlib.aclosing(source.watch()) as sets:

        async def following() -> list[BackendSpec]:
            async with asyncio.timeout(5):
                return list(await anext(sets))

        yield following


async def test_what_an_instance_says_of_itself(agent: tuple[Consul, str]) -> None:
    there, url = agent
    await there.say(
        instance("b", "10.0.0.2", 81, weights={"Passing": 5, "Warning": 1}),
        instance("a", "10.0.0.1", 80, meta={"zone": "eu-1a"}),
        instance("c", "", 82, node_address="10.0.0.3"),
        instance("ignored", "2001:db8::1", 83, meta={"id": "own-id"}),
        instance("d", "Greeter.Internal", 84),
    )
    async with watching(url) as following:
        assert await following() == [
            BackendSpec("a", "10.0.0.1", 80, zone="eu-1a"),
            BackendSpec("b", "10.0.0.2", 81, 5),
            BackendSpec("c", "10.0.0.3", 82),
            BackendSpec("d", "greeter.internal", 84),
            BackendSpec("own-id", "2001:db8::1", 83),
        ]


async def test_what_nobody_can_connect_to_is_left_out(agent: tuple[Consul, str]) -> None:
    there, url = agent
    await there.say(
        *(instance("a", "10.0.0.1", 80), instance("no-port", "10.0.0.2", 0)),
        *(instance("no-host", "a b\r\nc", 80), instance("high", "10.0.0.3", 70000)),
    )
    async with watching(url) as following:
        assert [each.id for each in await following()] == ["a"]


async def test_an_id_that_could_do_harm(agent: tuple[Consul, str]) -> None:
    there, url = agent
    await there.say(instance("a/b\r\nX-Evil: 1" + "x" * 200, "10.0.0.1", 80), instance("", "10.0.0.2", 80))
    async with watching(url) as following:
        ids = [each.id for each in await following()]
    assert ids[0] == "10.0.0.2:80"
    assert ids[1].startswith("a_b__X-Evil:_1xxx")
    assert len(ids[1]) == 128


async def test_the_same_id_on_two_nodes(agent: tuple[Consul, str]) -> None:
    there, url = agent
    await there.say(*(instance("web", f"10.0.0.{number}", 80, node=f"n{number}") for number in (1, 2)))
    async with watching(url) as following:
        assert [each.id for each in await following()] == ["web.n1", "web.n2"]


async def test_a_change_is_told_at_once(agent: tuple[Consul, str]) -> None:
    there, url = agent
    await there.say(instance("a", "10.0.0.1", 80))
    async with watching(url) as following:
        first = await following()
        coming = asyncio.ensure_future(following())
        await until(lambda: len(there.asked) == 2)
        assert there.asked[1]["index"] == str(there.index)
        assert there.asked[1]["wait"] == "5000ms"
        await asyncio.sleep(0.05)
        assert not coming.done()
        await there.say(instance("a", "10.0.0.1", 80), instance("b", "10.0.0.2", 80))
        second = await coming
    assert [each.id for each in second] == ["a", "b"]
    assert second[0] is first[0], "who has not changed is the very same"


async def test_without_a_change_it_asks_again_after_the_wait(agent: tuple[Consul, str]) -> None:
    there, url = agent
    await there.say(instance("a", "10.0.0.1", 80))
    async with watching(url, wait=0.2) as following:
        for _ in range(3):
            assert len(await following()) == 1
    assert [each.get("index") for each in there.asked] == [None, "11", "11"]


async def test_an_index_that_goes_backwards(agent: tuple[Consul, str]) -> None:
    """The agent has lost its state: what it says now holds, and the next question doesn't wait for 1000."""
    there, url = agent
    await there.say(instance("a", "10.0.0.1", 80), index=1000)
    async with watching(url) as following:
        await following()
        await there.say(instance("b", "10.0.0.2", 80), index=5)
        assert [each.id for each in await following()] == ["b"]
        await following()
        assert [each.get("index") for each in there.asked] == [None, "1000", None]
        await there.say(instance("c", "10.0.0.3", 80))
        assert [each.id for each in await following()] == ["c"]
        assert there.asked[-1]["index"] == "5"


async def test_an_index_of_0_is_never_waited_for(
    agent: tuple[Consul, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL", 0.2)
    there, url = agent
    for headers in ({"X-Consul-Index": "0"}, {"X-Consul-Index": "-3"}, {"X-Consul-Index": "many"}, {}):
        there.asked.clear()
        there.reply = web.json_response([instance("a", "10.0.0.1", 80)], headers=headers)
        began = asyncio.get_running_loop().time()
        async with watching(url) as following:
            for _ in range(3):
                assert len(await following()) == 1
        assert asyncio.get_running_loop().time() - began >= 0.39, "no busy loop"
        assert {each.get("index") for each in there.asked} <= {None, "1"}


async def test_what_is_asked_for(agent: tuple[Consul, str]) -> None:
    there, url = agent
    await there.say(
        instance("a", "10.0.0.1", 80, tags=["v2", "blue"]),
        instance("b", "10.0.0.2", 80, tags=["v2"]),
    )
    async with watching(url, datacenter="dc2", tags=("v2", "blue")) as following:
        assert [each.id for each in await following()] == ["a"]
    assert there.asked[0]["dc"] == "dc2"
    assert there.tags == ["v2", "blue"]


async def test_warnings_as_configured(agent: tuple[Consul, str]) -> None:
    there, url = agent
    warning = {"status": "warning", "weights": {"Passing": 10, "Warning": 2}}
    await there.say(
        instance("a", "10.0.0.1", 80, weights={"Passing": 10, "Warning": 2}),
        instance("b", "10.0.0.2", 80, **warning),
        instance("c", "10.0.0.3", 80, status="critical"),
    )
    async with watching(url) as following:
        assert [each.id for each in await following()] == ["a"]
    async with watching(url, passing=False) as following:
        assert [(each.id, each.weight) for each in await following()] == [("a", 10), ("b", 2)]


async def test_the_token_is_read_anew_for_each_question(agent: tuple[Consul, str]) -> None:
    there, url = agent
    there.token = "first"
    tokens = ["first", "second"]
    source = ConsulSource(Service(url, "greeter"), lambda: tokens[0], wait=0.1)
    async with contextlib.aclosing(source.watch()) as sets:
        await anext(sets)
        there.token = tokens.pop(0) and tokens[0]
        await anext(sets)
    assert [each["token"] for each in there.asked] == ["first", "second"]


async def test_a_token_that_cannot_be_read(agent: tuple[Consul, str]) -> None:
    def none() -> str:
        raise ValueError("can't read the token for Consul from /run/token: no such file")

    source = ConsulSource(Service(agent[1], "greeter"), none)
    with pytest.raises(SourceError, match="token for Consul from /run/token"):
        await anext(source.watch())


async def test_https_with_a_ca_of_its_own(tmp_path: Path) -> None:
    ca = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(server)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")

    def trusting() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))

    async with consul(server) as (there, url):
        await there.say(instance("a", "10.0.0.1", 80))
        source = ConsulSource(Service(url, "greeter"), tls=trusting)
        async with contextlib.aclosing(source.watch()) as sets:
            assert len(await anext(sets)) == 1
        stranger = ConsulSource(Service(url, "greeter"))
        with pytest.raises(SourceError, match=r"(?i)certificate"):
            await anext(stranger.watch())
        (tmp_path / "ca.pem").write_text("nothing")
        with pytest.raises(SourceError, match="CA can't be used"):
            await anext(source.watch())


# --- agents that are no good ---


async def failure(url: str) -> str:
    with pytest.raises(SourceError) as caught:
        await anext(ConsulSource(Service(url, "greeter")).watch())
    return str(caught.value)


async def test_an_agent_that_is_down() -> None:
    assert await failure("http://127.0.0.1:1") == "http://127.0.0.1:1 can't be asked: connection refused"


async def test_an_agent_that_is_silent(agent: tuple[Consul, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    there, url = agent
    there.hangs = True
    assert "has not answered within 0.2 s" in await failure(url)


async def test_no_permission(agent: tuple[Consul, str]) -> None:
    there, url = agent
    there.token = "secret"
    said = await failure(url)
    assert "status 403" in said
    assert "token lacks 'service:read'" in said
    assert "the token needs service:read" in said


async def test_an_empty_answer_to_a_token_that_may_not_see(agent: tuple[Consul, str]) -> None:
    """It comes with status 200, and since Consul 1.11 with a field that says so."""
    there, url = agent
    hiding = {"X-Consul-Index": "7", "X-Consul-Results-Filtered-By-ACLs": "true"}
    there.reply = web.json_response([], headers=hiding)
    assert "the token needs service:read" in await failure(url)
    there.reply = web.json_response([instance("a", "10.0.0.1", 80)], headers=hiding)
    async with watching(url) as following:
        assert [each.id for each in await following()] == ["a"]


async def test_thousands_are_read_beside_the_requests_and_not_all_the_time(
    agent: tuple[Consul, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often they change: what reading them costs is a small part of the time."""
    monkeypatch.setattr(module, "LONG", 1000)
    monkeypatch.setattr(module, "PAUSE", 0.0)
    there, url = agent
    many = [instance(f"g-{number}", f"10.0.{number // 256}.{number % 256}", 80) for number in range(1000)]
    async with watching(url) as following:
        loop = asyncio.get_running_loop()
        began, rounds = loop.time(), 0
        while loop.time() - began < 2 or rounds < 3:
            await there.say(*many[rounds:])
            assert len(await following()) == 1000 - rounds
            rounds += 1
        took = loop.time() - began
    assert rounds < 3 + took * module.PART / 0.002, "to read 1,000 takes more than 2 ms"


@pytest.mark.parametrize("space", ["", " ", "\r\n\t "])
@pytest.mark.parametrize("number", [0, 1, 3])
async def test_lists_with_any_space_in_between(agent: tuple[Consul, str], space: str, number: int) -> None:
    there, url = agent
    items = [json.dumps(instance(f"g-{each}", "10.0.0.1", 80 + each)) for each in range(number)]
    text = f"{space}[{space}{f'{space},{space}'.join(items)}{space}]{space}"
    there.reply = web.Response(text=text, headers={"X-Consul-Index": "7"})
    async with watching(url) as following:
        assert len(await following()) == number


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        *(
            (web.Response(text=text), "no JSON")
            for text in ("", " ", "[", "[]]", "[] x", "[,]", "{", "\ufeff[]")
        ),
        (web.Response(text=json.dumps([instance("a", "10.0.0.1", 80)])[:-1]), "no JSON"),
        (web.Response(text=json.dumps([instance("a", "10.0.0.1", 80)])[:-1] + "5]"), "no JSON"),
        (web.Response(text=json.dumps([instance("a", "10.0.0.1", 80)])[:-1] + ",]"), "no JSON"),
        (web.Response(body=b'["\xff"]'), "no JSON"),
        (web.Response(text="null"), "something else than a list"),
        (web.Response(status=500, text="rpc error: No cluster leader"), "No cluster leader"),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:1"}), "status 302"),
        (web.Response(text="<html>hello"), "no JSON"),
        (web.Response(text="[" * 100_000), "no JSON"),
        (web.Response(text='{"a": 1}'), "something else than a list"),
        (web.Response(text="[1]"), "makes no sense"),
        (web.Response(text="[{}]"), "makes no sense"),
        (web.json_response([{"Node": {"Address": ""}, "Service": {"Port": 1}}]), "makes no sense"),
        (web.json_response([{"Node": None, "Service": None}]), "makes no sense"),
        (web.json_response([instance("a", "10.0.0.1", "80")]), "makes no sense"),  # type: ignore[arg-type]
        (web.json_response([instance("a", "10.0.0.1", 80, weights={"Passing": "x"})]), "makes no sense"),
        (web.json_response([instance("a", ["10.0.0.1"], 80)]), "makes no sense"),  # type: ignore[arg-type]
    ],
)
async def test_an_answer_that_is_none(agent: tuple[Consul, str], reply: web.Response, words: str) -> None:
    there, url = agent
    there.reply = reply
    assert words in await failure(url)
