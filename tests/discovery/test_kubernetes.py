"""The source `kubernetes`, against recordings of a real API server and against what else one may say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest

from lb.core.backend import BackendSpec
from lb.discovery import kubernetes
from lb.discovery.base import SourceError
from lb.discovery.endpoint_slices import EndpointSlice, EndpointSlices
from lb.discovery.kubernetes import KubernetesSource, Service
from lb.discovery.kubernetes_access import Access
from tests.discovery.apiserver import ApiServer, api_server, endpoint, event, next_set, slice_of

Sets = AsyncIterator[Sequence[BackendSpec]]


@asynccontextmanager
async def watched(server: ApiServer, port: str = "http", token: str = "") -> AsyncIterator[Any]:
    access = Access(server.url, "default", "a test", None, lambda: token)
    source = KubernetesSource(Service("m", "", port), lambda: access)
    async with aclosing(source.watch()) as sets:
        yield sets


def read(item: dict[str, Any]) -> EndpointSlice:
    return msgspec.convert(item, EndpointSlice)


async def test_a_real_server_from_the_list_to_the_end_of_the_watch() -> None:
    async with api_server() as server, watched(server) as sets:
        listed, recorded = server.replay("list.json"), server.replay("watch.json")
        assert await next_set(sets) == ["10.77.1.1:8080", "10.77.1.2:8080", "10.77.1.3:8080"]
        assert await next_set(sets) == ["10.77.1.2:8080", "10.77.1.3:8080"]
        assert await next_set(sets) == ["10.77.1.1:8080", "10.77.1.2:8080", "10.77.1.3:8080"]
        assert await next_set(sets) == ["10.77.1.1:8080", "10.77.1.3:8080"]
        assert server.asked[0] == {"path": listed["path"], **listed["params"]}
        asked = dict(server.asked[1])
        assert 240 <= int(asked.pop("timeoutSeconds")) <= 480
        wanted = {"path": recorded["path"], **recorded["params"]}
        del wanted["timeoutSeconds"]
        assert asked == wanted
        # The stream ended cleanly, and goes on from the last bookmark.
        server.replay("watch_410.json")
        server.list(slice_of("m9", endpoint("10.77.1.9")))
        assert await next_set(sets) == ["10.77.1.9:8080"]
        assert server.asked[2]["resourceVersion"] == "253"
        assert "watch" not in server.asked[3]


async def test_a_410_as_a_status_lists_anew() -> None:
    async with api_server() as server, watched(server) as sets:
        server.list(slice_of("m0", endpoint("10.0.0.1")))
        server.say({"kind": "Status", "code": 410}, status=410)
        server.list(slice_of("m0", endpoint("10.0.0.2")))
        assert await next_set(sets) == ["10.0.0.1:8080"]
        assert await next_set(sets) == ["10.0.0.2:8080"]


async def test_an_unauthorized_is_told() -> None:
    async with api_server() as server, watched(server, token="old") as sets:
        server.replay("unauthorized.json")
        with pytest.raises(SourceError, match=r"401 Unauthorized: it does not know us; the token of a test"):
            await next_set(sets)
        assert server.tokens == ["Bearer old"]


async def test_a_forbidden_says_which_role_is_missing() -> None:
    async with api_server() as server, watched(server) as sets:
        server.say({"message": 'endpointslices is forbidden: User "x" cannot list'}, status=403)
        with pytest.raises(SourceError) as caught:
            await next_set(sets)
    for words in ("a Role in the namespace default", "list and watch on endpointslices", 'User "x" cannot'):
        assert words in str(caught.value)


async def test_a_server_that_is_busy_says_when_to_come_back() -> None:
    async with api_server() as server, watched(server) as sets:
        server.say({}, status=429, **{"Retry-After": "7"})
        with pytest.raises(SourceError) as caught:
            await next_set(sets)
    assert caught.value.after == 7.0


async def test_a_server_that_is_gone_is_told() -> None:
    async with api_server() as server:
        gone = server.url
    access = Access(gone, "default", "a test")
    async with aclosing(KubernetesSource(Service("m"), lambda: access).watch()) as sets:
        with pytest.raises(SourceError, match=f"no answer of the API server at {gone}"):
            await next_set(sets)


@pytest.mark.parametrize("wrong", [b"no json\n", b"[]\n", b'{"type": "ADDED", "object": {}}\n'])
async def test_what_cannot_be_read_is_told(wrong: bytes) -> None:
    async with api_server() as server, watched(server) as sets:
        server.list()
        stream = server.stream()
        assert await next_set(sets) == []
        stream.put_nowait(wrong)
        with pytest.raises(SourceError):
            await next_set(sets)


async def test_events_come_in_pieces_and_several_at_once() -> None:
    async with api_server() as server, watched(server) as sets:
        server.list(slice_of("a", endpoint("10.0.0.1")))
        stream = server.stream()
        assert await next_set(sets) == ["10.0.0.1:8080"]
        line = event("ADDED", slice_of("b", endpoint("10.0.0.2")))
        for piece in (line[:10], line[10:30], line[30:]):
            stream.put_nowait(piece)
            await asyncio.sleep(0.02)
        assert await next_set(sets) == ["10.0.0.1:8080", "10.0.0.2:8080"]
        stream.put_nowait(
            event("DELETED", slice_of("a"))
            + event("MODIFIED", slice_of("b", endpoint("10.0.0.3")))
            + event("BOOKMARK", {"metadata": {"resourceVersion": "999"}})
        )
        assert await next_set(sets) == ["10.0.0.3:8080"]  # one set for all of it
        stream.put_nowait(None)
        again = server.stream()
        again.put_nowait(event("DELETED", slice_of("b")))
        assert await next_set(sets) == []
        assert server.asked[2]["resourceVersion"] == "999"


@pytest.mark.parametrize(
    ("conditions", "serves"),
    [
        ({}, True),
        ({"ready": True}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": False, "terminating": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({"ready": True, "serving": True, "terminating": True}, False),
    ],
)
async def test_who_is_ready(conditions: dict[str, bool], serves: bool) -> None:
    async with api_server() as server, watched(server) as sets:
        server.list(slice_of("a", endpoint("10.0.0.1", **conditions), endpoint("10.0.0.2")))
        assert ("10.0.0.1:8080" in await next_set(sets)) == serves


async def test_where_all_terminate_those_that_still_serve_stay() -> None:
    async with api_server() as server, watched(server) as sets:
        going = {"ready": False, "terminating": True}
        server.list(
            slice_of(
                "a", endpoint("10.0.0.1", serving=True, **going), endpoint("10.0.0.2", serving=False, **going)
            )
        )
        assert await next_set(sets) == ["10.0.0.1:8080"]


async def test_several_slices_are_one_set_and_ipv4_comes_first() -> None:
    async with api_server() as server, watched(server) as sets:
        server.list(
            slice_of("a", endpoint("10.0.0.1", "pod-1"), endpoint("10.0.0.2", "pod-2")),
            slice_of("b", endpoint("10.0.0.2", "pod-2"), endpoint("10.0.0.3")),
            slice_of("c", endpoint("fd00::1", "pod-1"), family="IPv6"),
        )
        found = await asyncio.wait_for(anext(sets), 10)
        assert [(spec.id, spec.address) for spec in found] == [
            ("10.0.0.3:8080", "10.0.0.3:8080"),
            ("pod-1", "10.0.0.1:8080"),
            ("pod-2", "10.0.0.2:8080"),
        ]


async def test_a_cluster_of_ipv6_alone() -> None:
    async with api_server() as server, watched(server) as sets:
        server.list(slice_of("c", endpoint("fd00::1"), family="IPv6"), slice_of("a"))
        assert await next_set(sets) == ["[fd00::1]:8080"]


PORTS = [
    {"name": "http", "port": 8080},
    {"name": "admin", "port": 9901},
    {"name": "u", "port": 1, "protocol": "UDP"},
]


@pytest.mark.parametrize(("port", "found"), [("http", 8080), ("admin", 9901), ("7000", 7000)])
async def test_the_port_by_its_name_or_number(port: str, found: int) -> None:
    async with api_server() as server, watched(server, port) as sets:
        server.list(slice_of("a", endpoint("10.0.0.1"), ports=PORTS))
        assert await next_set(sets) == [f"10.0.0.1:{found}"]


@pytest.mark.parametrize(
    ("port", "words"), [("", r"several ports \(http, admin\)"), ("grpc", "no port called grpc")]
)
async def test_which_port_has_to_be_clear(port: str, words: str) -> None:
    async with api_server() as server, watched(server, port) as sets:
        server.list(slice_of("a", endpoint("10.0.0.1"), ports=PORTS))
        with pytest.raises(SourceError, match=words):
            await next_set(sets)


async def test_the_only_port_needs_no_name() -> None:
    async with api_server() as server, watched(server, "") as sets:
        server.list(
            slice_of("a", endpoint("10.0.0.1"), ports=[{"name": "", "port": 80}]), slice_of("b", ports=[])
        )
        assert await next_set(sets) == ["10.0.0.1:80"]


async def test_what_has_not_changed_is_the_very_same() -> None:
    async with api_server() as server, watched(server) as sets:
        server.list(slice_of("a", endpoint("10.0.0.1")), slice_of("b", endpoint("10.0.0.2")))
        stream = server.stream()
        before = await anext(sets)
        stream.put_nowait(event("DELETED", slice_of("b")))
        after = await asyncio.wait_for(anext(sets), 10)
        assert after[0] is before[0]


@pytest.mark.parametrize(
    ("hints", "ours", "zone"),
    [
        (None, "", "a"),
        (None, "b", "a"),
        (["b"], "b", "b"),
        (["c", "b"], "b", "b"),
        (["c"], "a", "c"),
        ([], "b", "a"),
    ],
)
async def test_the_zone_of_an_endpoint(hints: list[str] | None, ours: str, zone: str) -> None:
    each = endpoint("10.0.0.1", zone="a")
    if hints is not None:
        each["hints"] = {"forZones": [{"name": name} for name in hints]}
    slices = EndpointSlices("http", ours)
    slices.put(read(slice_of("one", each)))
    assert [spec.zone for spec in slices.backends()] == [zone]


async def test_a_slice_may_lack_the_port_that_others_have() -> None:
    """While a Deployment gets another port, the pods of before don't have it."""
    slices = EndpointSlices("http")
    slices.put(read(slice_of("old", endpoint("10.0.0.1"), ports=[{"name": "admin", "port": 9901}])))
    with pytest.raises(SourceError, match=r"no port called http \(there is: admin\)"):
        slices.backends()
    slices.put(read(slice_of("new", endpoint("10.0.0.2"))))
    assert [spec.address for spec in slices.backends()] == ["10.0.0.2:8080"]


async def test_what_no_watch_has_confirmed_is_listed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch from a version of the future brings nothing: one that brought nothing is not gone on from."""
    async with api_server() as server, watched(server) as sets:
        server.list(slice_of("a", endpoint("10.0.0.1")), version="1000")
        server.stream().put_nowait(None)
        server.list(slice_of("a", endpoint("10.0.0.2")), version="7")
        assert await next_set(sets) == ["10.0.0.1:8080"]
        assert await next_set(sets) == ["10.0.0.2:8080"]
        assert "watch" not in server.asked[2]


async def test_of_many_changes_of_a_slice_the_last_one_counts() -> None:
    """In the form in which API servers write: that is not read in full until it is needed."""
    async with api_server() as server, watched(server) as sets:
        server.list(slice_of("a", endpoint("10.0.0.1")))
        stream, second = server.stream(), server.stream()
        assert await next_set(sets) == ["10.0.0.1:8080"]
        items = [
            slice_of("ab"[each % 2], endpoint(f"10.0.1.{each}"), version=str(each)) for each in range(200)
        ]
        events = [{"type": "MODIFIED", "object": item} for item in items]
        compact = [json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in events]
        stream.put_nowait(b"".join(compact))
        stream.put_nowait(b'{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"200"}}}\n')
        stream.put_nowait(None)
        found: list[str] = []
        while found != ["10.0.1.199:8080"]:
            found = await next_set(sets)
        second.put_nowait(compact[0])
        assert await next_set(sets) == ["10.0.1.0:8080", "10.0.1.199:8080"]
        assert server.asked[2]["resourceVersion"] == "200"


async def test_a_watch_that_was_cut_short_is_followed_by_a_short_one() -> None:
    async with api_server() as server, watched(server) as sets:
        server.list(slice_of("a", endpoint("10.0.0.1")), version="5")
        stream, second = server.stream(), server.stream()
        assert await next_set(sets) == ["10.0.0.1:8080"]
        stream.put_nowait(event("MODIFIED", slice_of("a", endpoint("10.0.0.2"), version="6")))
        stream.put_nowait(None)
        assert await next_set(sets) == ["10.0.0.2:8080"]
        second.put_nowait(event("MODIFIED", slice_of("a", endpoint("10.0.0.3"), version="8")))
        assert await next_set(sets) == ["10.0.0.3:8080"]
        assert 60 <= int(server.asked[2]["timeoutSeconds"]) <= 120
        assert server.asked[2]["resourceVersion"] == "6"


async def test_a_server_that_forgets_everything_is_not_asked_in_a_loop() -> None:
    async with api_server() as server, watched(server) as sets:
        for _ in range(40):
            server.list(slice_of("a", endpoint("10.0.0.1")))
            server.say({}, status=410)
        with suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                async for _ in sets:
                    pass
        assert len(server.asked) <= 8


async def test_a_server_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "ANSWER_WITHIN", 0.2)
    async with api_server() as server, watched(server) as sets:
        server.list(slice_of("a", endpoint("10.0.0.1")))
        assert await next_set(sets) == ["10.0.0.1:8080"]
        with pytest.raises(SourceError, match="no answer of the API server"):
            await next_set(sets)  # nobody answers the watch


WRONG_SLICE = {"metadata": {"name": "a"}, "endpoints": [{"addresses": "10.0.0.1"}]}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("hello", r"can't be read: Expected `object`, got `str`"),
        ([], r"can't be read: Expected `object`, got `array`"),
        ({"items": []}, "missing required field `metadata`"),
        (
            {"metadata": {}, "items": [WRONG_SLICE]},
            r"Expected `array \| null`, got `str` - at `SliceList\.items\[0\]\.endpoints\[0\]\.addresses",
        ),
    ],
)
async def test_a_list_that_is_none_is_told(said: object, words: str) -> None:
    async with api_server() as server, watched(server) as sets:
        server.say(said)
        with pytest.raises(SourceError, match=words):
            await next_set(sets)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"<html>", "can't be read: JSON is malformed"),
        (b'{"object":{}}', "can't be read: Object missing required field `type`"),
        (
            b'{"type":"ADDED","object":{"metadata":{"name":5}}}',
            r"got `int` - at `EndpointSlice\.metadata\.name",
        ),
        (
            b'{"type":"ERROR","object":{"code":500,"message":"etcd is gone"}}',
            "the watch failed: etcd is gone",
        ),
        (b'{"type":"ERROR","object":{"code":500}}', r"the watch failed: \{\"code\":500\}"),
        (
            b'{"type":"ADDED","object":{"metadata":{"name":"\xff"}}}',
            "can't be read: 'utf-8' codec can't decode",
        ),
        (b'{"type":"ADDED","object":' + b"[" * 100_000, "can't be read"),
    ],
)
async def test_an_event_that_is_none_is_told(line: bytes, words: str) -> None:
    async with api_server() as server, watched(server) as sets:
        server.list(slice_of("a", endpoint("10.0.0.1")))
        stream = server.stream()
        assert await next_set(sets) == ["10.0.0.1:8080"]
        stream.put_nowait(line + b"\n")
        with pytest.raises(SourceError, match=words):
            await next_set(sets)


async def test_what_nobody_said_may_be_null() -> None:
    nulls = {"endpoints": None, "ports": None}
    each = {"addresses": ["10.0.0.1"], "conditions": None, "targetRef": None, "zone": None, "hints": None}
    port = {"name": None, "port": 8080, "protocol": None, "appProtocol": None}
    async with api_server() as server, watched(server, "") as sets:
        server.say({"metadata": {"resourceVersion": "7"}, "items": None})
        stream = server.stream()
        assert await next_set(sets) == []
        stream.put_nowait(event("ADDED", {**slice_of("a"), **nulls}))
        stream.put_nowait(event("ADDED", {**slice_of("b"), "endpoints": [each], "ports": [port]}))
        while (found := await next_set(sets)) == []:
            pass
        assert found == ["10.0.0.1:8080"]
