"""Raw responses of a backend, well-formed and hostile, through the balancer to a client that is very strict.

After each, a probe on the same and on a new connection has to get its own answer: nothing may be left in the
queue. What a case wants:

* `pass`: it reaches the client as it was meant;
* `502`: another answer of ours in its place;
* `abort`: the client must see that it is cut;
* `either` an answer of ours or the whole of it.
"""

from __future__ import annotations

import re

import pytest

from tests.conformance.corpus import FAIL, LENIENT, PASS, Case, Verdict, cases, cut, raw
from tests.conformance.strict import Response
from tests.e2e.scene import Scene
from tests.e2e.wire import PATIENCE, Wire, answer, get, head


@pytest.mark.parametrize("case", cases("responses.json"))
async def test_response(scene: Scene, case: Case) -> None:
    asked = 0

    async def serve(wire: Wire) -> None:
        nonlocal asked
        while True:
            request = await wire.request()
            if request.target != "/case":
                await wire.send(answer(request.target.encode()))
                continue
            asked += 1
            for piece in cut(case, raw(case)):
                await wire.send(piece)
                if case["segments"]:
                    await wire.more(0.15 if case["name"].startswith("late") else 0.003)
            if case["then"] != "keep":
                return

    scene.backend.script = serve
    client = await scene.connect()
    body = case["req_body"].encode()
    length = [f"Content-Length: {len(body)}"] if body or case["method"] == "POST" else []
    await client.send(head(f"{case['method']} /case HTTP/1.1", "Host: a.example", *length) + body)
    response = await client.rest(case["method"])
    if response.complete and not client.closed:
        await client.more(0.3 if case["name"].startswith("late") else 0.05)
    behind, kept = client.received, not client.closed
    if response.complete and kept:
        await probe(client, may_close=True)
    await probe(await scene.connect(), may_close=False)
    assert case["method"] != "POST" or asked == 1, f"what isn't idempotent was sent {asked} times"
    assert not behind, f"more came behind the response: {behind[:60]!r}"
    verdict, why = judge(case, response, kept)
    assert verdict == PASS, f"{verdict}: {why} (RFC {case['rfc']}; {case['note']})"


async def probe(client: Wire, may_close: bool) -> None:
    """Asks for something else, and has to get just that; unless the connection has been closed meanwhile."""
    await client.send(get("/probe"))
    response = await client.rest(patience=PATIENCE)
    if not (client.closed and may_close and response.status is None):
        assert (response.status, response.body) == (200, b"/probe"), "poisoned"


def judge(case: Case, response: Response, kept: bool) -> Verdict:
    want, status = case["want"], response.status
    ours = status in (500, 502, 503, 504) and response.complete and status != case["status"]
    seen = f"{status}, {response.body[:40]!r}, {response.complete=}"
    if ours and want != "pass":
        return PASS, ""
    if want == "502":
        return (FAIL, seen) if status is not None or kept else (LENIENT, "closed without a response")
    if want == "abort":
        cut_short = not response.complete and not kept
        discarded = ["may_discard_trailers", ""] in case["checks"] and response.body == b"hello"
        return (PASS, "") if cut_short or discarded else (FAIL, f"looks complete: {seen}")
    if status != case["status"]:
        return FAIL, f"expected {case['status']}: {seen}"
    if not response.complete:
        return (PASS, "") if want == "either" and not kept else (FAIL, seen)
    if case["body_hex"] is not None and response.body != bytes.fromhex(case["body_hex"]):
        return FAIL, seen
    failed = [check for check in case["checks"] if not holds(check, response)]
    return (FAIL, f"not with {failed}: {response.head!r}") if failed else (PASS, "")


def holds(check: list[object], response: Response) -> bool:
    match check:
        case ["header", str(name), value]:
            return response.all(name) == [value]
        case ["header_in", str(name), [*values]]:
            return (response.all(name) or [None])[0] in values
        case ["no_header", str(name)]:
            return not response.all(name)
        case ["count_max", str(name), int(most)]:
            return len(response.all(name)) <= most
        case ["joined", str(name), joined]:
            return re.sub(r"\s*,\s*", ",", ",".join(response.all(name))) == joined
        case ["no_merge", str(name), value]:
            return value not in response.all(name)
        case ["interim", status]:
            return status in response.interim
        case _:
            raise ValueError(f"no such check: {check}")
