"""What is known of one exchange: as a JSON-able dict, and from that as text for a person.

The text is made of the dict and of nothing else, so that `lb explain` can make it from what the admin API
answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from typing import Any

from lb.core.backend import Backend
from lb.core.failure import Failure
from lb.core.record import AttemptRecord, ExchangeRecord
from lb.core.seen import PoolView, Seen
from lb.observe.timestamp import iso_time

# --- as a dict ---


def as_dict(exchange: ExchangeRecord, epoch: float) -> dict[str, Any]:
    """A finished exchange for the API. `epoch` is the Unix time at which the monotonic clock stood at 0.

    Times in `*_ms` are milliseconds since `time`, at which the request's head was here; null is never.
    `no_pick` is the pool as it was when it had no backend to give.
    """
    started = exchange.started
    views = [exchange.view, *(attempt.seen[0] for attempt in exchange.attempts if attempt.seen is not None)]
    policy = next((view.policy for view in views if view is not None), "")
    return {
        "id": _text(exchange.id),
        "time": iso_time(epoch + started),
        "client": exchange.client,
        "user": exchange.user or None,
        "listener": exchange.listener,
        "method": _text(exchange.method),
        "host": _text(exchange.host),
        "target": _text(exchange.target),
        "route": exchange.route,
        "pool": exchange.pool,
        "policy": policy,
        "status": exchange.status,
        "failure": _failure(exchange.failure),
        "no_pick": None if exchange.view is None else _left_out(exchange.view),
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "received_ms": _millis(started, exchange.received_at),
        "duration_ms": round((exchange.ended - started) * 1e3, 3),
        "attempts": [
            _attempt(attempt, started, previous)
            for previous, attempt in zip([None, *exchange.attempts], exchange.attempts, strict=False)
        ],
    }


def _attempt(attempt: AttemptRecord, started: float, previous: AttemptRecord | None) -> dict[str, Any]:
    # Where a connection turned out to be closed, the same pick is tried once more over a new one.
    redialled = previous is not None and attempt.seen is not None and attempt.seen is previous.seen
    return {
        "backend": attempt.backend.id,
        "address": attempt.backend.spec.address,
        "status": attempt.status,
        "failure": _failure(attempt.failure),
        "redialled": redialled,
        "reused_connection": attempt.reused,
        "sent": attempt.sent,
        "received": attempt.received,
        "picked_ms": _millis(started, attempt.started),
        "connected_ms": _millis(started, attempt.connected),
        "first_byte_ms": _millis(started, attempt.head_at),
        "ended_ms": _millis(started, attempt.ended),
        "pick": None if attempt.seen is None else _pick(attempt.seen, attempt.backend),
    }


def _pick(seen: Seen, picked: Backend) -> dict[str, Any]:
    view, loads, drawn, reason, scores, shadow = seen
    candidates = view.candidates or drawn
    weights = view.weights or [backend.configured_weight for backend in drawn]
    shown: list[tuple[Backend, int | None, int]] = list(zip(candidates, loads, weights, strict=True))
    if picked not in candidates:  # a large pool shows only what the policy drew, and that may be nothing
        shown.append((picked, None, picked.configured_weight))
    score = dict(zip(drawn, scores, strict=False)) or _worked_out(view, shown)
    return {
        "reason": reason,
        "candidates": [
            {
                "id": backend.id,
                "in_flight": load,
                "weight": weight,
                "tier": backend.spec.tier,
                "zone": backend.spec.zone or None,
                "score": _significant(score.get(backend)),
                "drawn": backend in drawn,
                "picked": backend is picked,
            }
            for backend, load, weight in shown
        ],
        "candidates_total": view.candidates_total,
        "shadow": {"policy": view.shadow, "picked": None if shadow is None else shadow.id}
        if view.shadow
        else None,
        **_left_out(view),
    }


def _worked_out(view: PoolView, shown: Sequence[tuple[Backend, int | None, int]]) -> dict[Backend, float]:
    """The scores of a policy that goes by requests in flight and weights, where there are some to compare."""
    if view.score is None or view.candidates_total < 2:
        return {}
    weights = view.effective or [weight for _, _, weight in shown]
    return {
        backend: view.score(load, weight)
        for (backend, load, _), weight in zip(shown, weights, strict=False)
        if load is not None and weight
    }


def _significant(score: object) -> float | None:
    """Four digits say enough. What no JSON can say is none."""
    return float(f"{score:.4g}") if isinstance(score, int | float) and isfinite(score) else None


def _left_out(view: PoolView) -> dict[str, Any]:
    return {
        "excluded": [{"id": name, "reason": why} for name, why in view.excluded],
        "excluded_total": view.excluded_total,
        "panic": view.panic or None,
    }


def _failure(failure: Failure | None) -> dict[str, str] | None:
    if failure is None:
        return None
    return {"name": failure.name, "fault": failure.fault, "message": failure.message}


def _millis(since: float, moment: float) -> float | None:
    return round((moment - since) * 1e3, 3) if moment else None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


# --- as text ---


def explain(record: dict[str, Any]) -> str:
    """What happened to a request and why, for a person. Takes what `as_dict` makes, maybe by way of JSON."""
    attempts = record["attempts"]
    lines = [*_heading(record)]
    for number, attempt in enumerate(attempts, 1):
        title = f"Attempt {number}" if len(attempts) > 1 else "Attempt"
        lines += ["", f"{title}: {attempt['backend']}{_elsewhere(attempt)}", ""]
        lines += _explain_pick(attempt)
        lines += ["", *_timeline(attempt)]
    if record["no_pick"] is not None:
        excluded = f" Left out: {_excluded(record['no_pick'])}." if record["no_pick"]["excluded"] else ""
        lines += ["", f"No backend was picked.{excluded}"]
    elif not attempts:
        lines += ["", "It was answered without a backend."]
    return "".join(f"{_printable(line.rstrip())}\n" for line in lines)


def _heading(record: dict[str, Any]) -> Iterator[str]:
    yield f"Request {record['id']}"
    yield ""
    policy = f" (policy {record['policy']})" if record["policy"] else ""
    route = f"route {record['route']}, " if record["route"] else ""
    user = f"{record['user']} at " if record.get("user") else ""
    received = f", {_bytes(record['bytes_in'])} of body" if record["bytes_in"] else ""
    yield from _columns(
        [
            ("  asked", f"{record['method']} {record['host']}{record['target']}{received}"),
            ("  by", f"{user}{record['client']}, through {record['listener']}"),
            ("  at", record["time"]),
            ("  led to", f"{route}pool {record['pool']}{policy}" if record["pool"] else f"{route}no pool"),
            ("  got", _outcome(record)),
        ]
    )


def _outcome(record: dict[str, Any]) -> str:
    size = f", {_bytes(record['bytes_out'])} of body"
    after = f", after {record['duration_ms']:.2f} ms"
    failure = record["failure"]
    if failure is None:
        return f"{record['status']}{size}{after}"
    status = record["status"] or "no answer"
    return f"{status}{size}{after}: {failure['name']} ({failure['fault']}). {failure['message']}"


def _elsewhere(attempt: dict[str, Any]) -> str:
    """The address of a backend, where that isn't its name already."""
    return "" if attempt["address"] == attempt["backend"] else f" at {attempt['address']}"


def _explain_pick(attempt: dict[str, Any]) -> Iterator[str]:
    pick = attempt["pick"]
    if attempt["redialled"]:
        yield "  The same backend once more, over a new connection: the reused one broke without an answer."
        return
    if pick is None:
        yield "  Why it was picked was not recorded."
        return
    total, candidates = pick["candidates_total"], pick["candidates"]
    drawn = [each["id"] for each in candidates if each["drawn"]]
    compared = f"; compared were {_and(drawn)}" if len(drawn) > 1 else ""
    if total > 1:
        yield f"  {total} candidates{compared}."
    if pick["panic"]:
        yield f"  All active backends are candidates, well or not: {pick['panic']}."
    yield f"  Picked {attempt['backend']}: {pick['reason']}."
    if pick["shadow"] is not None:
        yield f"  {_shadow(pick['shadow'], attempt['backend'])}"
    yield ""
    yield from _table(candidates)
    if total > len(candidates):
        yield f"     and {total - len(candidates)} more"
    if pick["excluded"]:
        yield ""
        yield f"  Left out: {_excluded(pick)}."


def _shadow(shadow: dict[str, Any], picked: str) -> str:
    policy, choice = shadow["policy"], shadow["picked"]
    if choice is None:
        return f"The shadow policy {policy} was not asked, or failed."
    return f"The shadow policy {policy} would have taken {'the same' if choice == picked else choice}."


SWITCHED = 101
"""The status of an answer with which the connection becomes a tunnel."""

OPTIONAL = ("score", "tier", "zone")
"""Columns that are only there where they tell something."""


def _table(candidates: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The candidates. What is the same for all of them, tier 0 or no zone, needs no column."""
    shown = [column for column in OPTIONAL if any(each.get(column) for each in candidates)]
    if any(each.get("score") is not None for each in candidates) and "score" not in shown:
        shown.insert(0, "score")
    if "score" in shown and _says_the_same(candidates):
        shown.remove("score")
    rows = [("   ", "backend", "in flight", "weight", *shown, "")]
    for each in candidates:
        load = "?" if each["in_flight"] is None else str(each["in_flight"])
        note = "picked" if each["picked"] else "compared" if each["drawn"] else ""
        more = ["" if each.get(column) is None else _cell(each[column]) for column in shown]
        rows.append((" ->" if each["picked"] else "", each["id"], load, str(each["weight"]), *more, note))
    return _columns(rows, right=range(2, 4 + len([each for each in shown if each != "zone"])))


def _says_the_same(candidates: Sequence[dict[str, Any]]) -> bool:
    """Whether scores are but the requests in flight, with this one or without."""
    known = [each for each in candidates if None not in (each.get("score"), each["in_flight"])]
    return {each["score"] - each["in_flight"] for each in known} in ({0}, {1})


def _cell(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _excluded(pick: dict[str, Any]) -> str:
    names = [f"{each['id']} ({each['reason']})" for each in pick["excluded"]]
    more = pick["excluded_total"] - len(names)
    return _and([*names, f"{more} more"] if more > 0 else names)


def _timeline(attempt: dict[str, Any]) -> Iterator[str]:
    """What happened when, in the order of the clock, each with the time since what was before it."""
    failure = attempt["failure"]
    connection = "an idle connection taken" if attempt["reused_connection"] else "a new connection opened"
    sent = f", {_bytes(attempt['sent'])} of body sent" if attempt["sent"] else ""
    end = f"last byte, {_bytes(attempt['received'])} of body received{sent}"
    if failure is not None:
        end = f"failed: {failure['name']}. {failure['message']}"
    elif attempt["status"] == SWITCHED:
        sizes = f"{_bytes(attempt['sent'])} sent, {_bytes(attempt['received'])} received"
        end = f"both sides have ended: {sizes} after the switch to another protocol"
    events = [
        (attempt["picked_ms"], "picked"),
        (attempt["connected_ms"], connection),
        (attempt["first_byte_ms"], f"head of the answer: {attempt['status']}"),
        (attempt["ended_ms"], end),
    ]
    rows, before = [], 0.0
    for moment, what in events:
        if moment is not None:
            rows.append(("  ", f"{moment:.2f} ms", f"+{moment - before:.2f}", what))
            before = moment
    return _columns(rows, right=(1, 2))


def _columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> Iterator[str]:
    """Rows with their columns aligned: to the left, or to the right those of the given numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(
            cell.rjust(width) if at in right else cell.ljust(width) for at, (cell, width) in enumerate(cells)
        )


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _printable(line: str) -> str:
    """What a client sent must not steer the terminal of who reads it."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
