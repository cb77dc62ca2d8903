"""Raw requests, well-formed and hostile, through the balancer to a backend that is very strict.

Anything that this backend calls a violation is a failure, whatever the client was answered. What cases want:

* `reject`: one of its statuses, or the connection closed; nothing reaches the backend, nothing that was
  pipelined behind it is processed, and the connection ends;
* `accept`: exactly n requests arrive, n answers come, and the next request on the connection works;
* `either` of the two;
* `wait`: it is incomplete, so nothing complete arrives.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tests.conformance.corpus import FAIL, LENIENT, PASS, Case, Verdict, cases, cut, raw
from tests.conformance.strict import Incomplete, Request, Response, parse_request, parse_response
from tests.e2e.scene import Scene
from tests.e2e.wire import Wire, get

PATIENCE = 1.0  # seconds for an answer
LAST_WORDS = 0.6  # seconds more for the end of the connection, or for what must not come


@dataclass
class Outcome:
    answers: list[Response]
    closed: bool
    in_sync: bool | None  # whether the next request on the connection worked; None where it wasn't tried
    arrived: list[Request] = field(default_factory=list)


@pytest.mark.parametrize("case", [*cases("requests.json"), *cases("own_requests.json")])
async def test_request(scene: Scene, case: Case) -> None:
    arrived: list[Request] = []

    async def record(wire: Wire) -> None:
        while True:
            try:
                request, size = parse_request(wire.received)
            except Incomplete:
                if not await wire.read():
                    return
                continue
            wire.received = wire.received[size:]
            arrived.append(request)
            body = b"" if request.method == "HEAD" else b"ok"
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)
            if request.violations:
                return

    scene.backend.script = record
    outcome = await converse(case, await scene.connect())
    outcome.arrived = [each for each in arrived if each.target != "/after"]
    verdict, why = judge(case, outcome)
    assert verdict == PASS, f"{verdict}: {why} (RFC {case['rfc']}; {case['note']})"


async def converse(case: Case, client: Wire) -> Outcome:
    """Sends a case, and listens to what is said to it."""
    await send(case, client)
    head_first = raw(case).startswith(b"HEAD ")
    deadline = time.monotonic() + PATIENCE
    after = case["after"]
    while not client.closed and time.monotonic() < deadline + (LAST_WORDS if after == "dead" else 0):
        answers, broken = parse_answers(client, head_first)
        left = max(0.01, deadline - time.monotonic())
        if broken:
            break
        if len(answers) >= case["n"]:
            ends = after == "dead" and (case["must_close"] or (answers[-1].status or 0) >= 400)
            quiet = left + LAST_WORDS if ends else 0.12 if after in ("dead", "any") else 0.03
            if not await client.more(quiet):
                break
        elif answers and after == "none":
            if not await client.more(min(left, 0.12)):
                break
        else:
            await client.more(left)
    answers, broken = parse_answers(client, head_first)
    assert not broken, f"malformed response: {broken}"
    closed = bool(client.closed)
    good = answers and all((each.status or 0) < 300 for each in answers)
    in_sync = None
    if after == "sync" and not closed and good and "close" not in answers[-1].all("connection"):
        in_sync = await works(client)
    return Outcome(answers, closed, in_sync)


async def send(case: Case, client: Wire) -> None:
    data = raw(case) + (get("/smuggled") if case["after"] == "dead" else b"")
    try:
        for piece in cut(case, data):
            await client.send(piece)
            if case["segments"]:
                await client.more(0.002)
        if case["fin"]:
            client.end()
    except OSError:
        pass  # it has closed, in the midst of what we say; the judge will tell


async def works(client: Wire) -> bool:
    client.received = b""
    try:
        await client.send(get("/after"))
        response = await client.response(patience=PATIENCE)
    except (AssertionError, OSError, TimeoutError):
        return False
    return response.status == 200


def parse_answers(client: Wire, head_first: bool) -> tuple[list[Response], list[str]]:
    """The complete answers so far, and what is wrong with the next one."""
    answers: list[Response] = []
    data = client.received
    while data:
        answer = parse_response(data, head_first and not answers, client.closed)
        if answer.violations:
            return answers, answer.violations
        if not answer.complete:
            break
        answers.append(answer)
        data = answer.rest
    return answers, []


def judge(case: Case, outcome: Outcome) -> Verdict:
    statuses = [answer.status for answer in outcome.answers]
    violations = [each for request in outcome.arrived for each in request.violations]
    if violations:
        return FAIL, f"forwarded to the backend: {violations[:3]}"
    smuggled = any(request.target == "/smuggled" for request in outcome.arrived)
    arrived = [request for request in outcome.arrived if request.target != "/smuggled"]
    refused = not arrived and (statuses[0] in case["status"] if statuses else outcome.closed)
    if case["want"] == "wait":
        return _waited(arrived, smuggled, statuses)
    if refused and case["want"] in ("reject", "either"):
        if smuggled:
            return FAIL, "the request behind the rejected one was processed"
        if case["want"] == "reject" and case["after"] == "dead" and not outcome.closed:
            return LENIENT, f"{statuses}, but the connection is left open"
        return PASS, ""
    if case["want"] in ("accept", "either"):
        return _accepted(case, outcome, arrived, smuggled, statuses)
    return _not_rejected(case, arrived, smuggled, statuses)


def _waited(arrived: Sequence[Request], smuggled: bool, statuses: Sequence[int | None]) -> Verdict:
    if arrived or smuggled:
        return FAIL, "a complete request reached the backend"
    if any((status or 0) < 400 for status in statuses):
        return FAIL, f"answered {statuses}"
    return PASS, ""


def _accepted(
    case: Case,
    outcome: Outcome,
    arrived: Sequence[Request],
    smuggled: bool,
    statuses: Sequence[int | None],
) -> Verdict:
    if smuggled and case["after"] == "dead":
        return FAIL, "a request pipelined behind a close was processed"
    if len(arrived) != case["n"]:
        return FAIL, f"{len(arrived)} requests at the backend, not {case['n']}; {statuses}, {outcome.closed=}"
    if len(statuses) < case["n"] or any((status or 0) >= 300 for status in statuses[: case["n"]]):
        return FAIL, f"statuses {statuses}"
    failed = [check for check in case["checks"] if not holds(check, arrived[0])]
    if failed:
        return FAIL, f"it arrived, but not with {failed}: {arrived[0]}"
    if outcome.in_sync is False:
        return FAIL, "the connection lost its rhythm with this request"
    return PASS, ""


def _not_rejected(
    case: Case, arrived: Sequence[Request], smuggled: bool, statuses: Sequence[int | None]
) -> Verdict:
    if not arrived:
        return FAIL, f"only the smuggled request: {smuggled}; statuses {statuses}"
    may_pass = case["lenient"] and not (smuggled and case["must_close"])
    if may_pass and all(holds(check, arrived[0]) for check in case["checks"]):
        return LENIENT, f"accepted: {case['lenient']}"
    return FAIL, f"forwarded: {arrived[0].method} {arrived[0].target[:40]}, {statuses}"


def holds(check: list[object], request: Request) -> bool:
    """Whether what arrived is as the case wants it."""
    match check:
        case ["method", method]:
            return request.method == method
        case ["target", target]:
            return request.target == target
        case ["target_in", [*targets]]:
            return request.target in targets
        case ["target_bytes", str(digits)]:
            return request.target.encode("latin-1") == bytes.fromhex(digits)
        case ["version", *_]:
            return request.version in ("HTTP/1.1", "HTTP/1.0")
        case ["header", str(name), value]:
            return request.all(name) == [value]
        case ["header_in", str(name), [*values]]:
            return (request.all(name) or [None])[0] in values
        case ["header_present", str(name)]:
            return bool(request.all(name))
        case ["no_header", str(name)]:
            return not request.all(name)
        case ["no_header_value", str(name), str(value)]:
            return value not in ",".join(request.all(name)).lower()
        case ["header_prefix", str(name), str(start)]:
            return ", ".join(_members(request, name)).startswith(start)
        case ["headers_joined", str(name), joined]:
            return ",".join(_members(request, name)) == joined
        case ["headers_joined_any", str(name), [*joined]]:
            return bool({",".join(_members(request, name)), "; ".join(request.all(name))} & set(joined))
        case ["count", str(name), number]:
            return len(request.all(name)) == number
        case ["no_merge", str(name), str(part)]:
            return not any(part in value for value in request.all(name))
        case ["body", str(digits)]:
            return request.body == bytes.fromhex(digits)
        case ["body_len", size]:
            return len(request.body) == size
        case ["one_framing" | "no_obs_fold" | "no_bare_lf" | "no_bare_cr", _]:
            return not request.violations
        case _:
            raise ValueError(f"no such check: {check}")


def _members(request: Request, name: str) -> list[str]:
    return [member.strip() for value in request.all(name) for member in value.split(",")]
