"""Requests of one key go to one backend, through the whole of the data plane."""

from __future__ import annotations

from tests.e2e.scene import Scene
from tests.e2e.wire import Script, Wire, answer, head

CONFIG = """
access_log: off
routes:
  - {match: {path_prefix: /client}, pool: client}
  - {match: {path_prefix: /api}, pool: path, strip_prefix: /api}
  - {pool: user}
pools:
  user:
    balancer: {policy: ring_hash, key: "header:x-user"}
    backends: [{id: a, address: $a}, {id: b, address: $b}, {id: c, address: $c}]
  client:
    balancer: maglev
    backends: [{id: a, address: $a}, {id: b, address: $b}, {id: c, address: $c}]
  path:
    balancer: {policy: rendezvous, key: path, bounded_load: 2}
    backends: [{id: a, address: $a}, {id: b, address: $b}, {id: c, address: $c}]
"""


def who(name: str) -> Script:
    async def serve(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(answer(name.encode()))

    return serve


async def asked(scene: Scene, target: str, *fields: str) -> str:
    client = await scene.connect()
    await client.send(head(f"GET {target} HTTP/1.1", "Host: a.example", *fields))
    body: bytes = (await client.response()).body
    client.close()
    return body.decode()


async def test_one_backend_for_each_key(scene: Scene) -> None:
    for letter in "abc":
        scene.backends[letter].script = who(letter)
    users = [f"x-user: {number}" for number in range(12)]
    first = [await asked(scene, "/", user) for user in users]
    assert [await asked(scene, "/other", user) for user in users] == first
    assert set(first) == set("abc")
    assert len({await asked(scene, f"/client/{number}") for number in range(6)}) == 1
    paths = [await asked(scene, f"/api/{number}?{number % 3}") for number in range(12)]
    assert [await asked(scene, f"/api/{number}") for number in range(12)] == paths
    assert set(paths) == set("abc")
    assert {await asked(scene, "/") for _ in range(60)} == set("abc"), "without a key: by chance"
