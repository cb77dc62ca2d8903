"""Records as JSON and as words."""

import json
from random import Random

import pytest

from lb.balance import policy_class
from lb.core.backend import BackendSpec
from lb.core.failure import CONNECT_FAILED, NO_ELIGIBLE, RATE_LIMITED, RESET, RESPONSE_TIMEOUT
from lb.core.pool import Pool
from lb.core.rules import PoolRules
from lb.observe.render import as_dict, explain
from lb.simulate.clock import VirtualClock
from tests.observe.made import EPOCH, made_attempt, made_exchange, made_pool

SEED_THAT_DRAWS_ONE_AND_TWO = 1


def through_json(exchange):
    return json.loads(json.dumps(as_dict(exchange, EPOCH)))


def test_a_plain_exchange_as_dict():
    pool = made_pool(5)
    a, _, c, d, e = pool.backends.values()
    a.own, c.own = 4, 1
    pool.set_health(d, False)
    pool.set_state(e, "draining")
    attempt = made_attempt(pool)
    exchange = made_exchange(1, [attempt])
    record = through_json(exchange)
    [shown] = record.pop("attempts")
    assert record == {
        "id": exchange.id.decode(),
        "time": "2023-11-14T22:15:00.000Z",
        "client": "10.1.2.3",
        "user": None,
        "listener": "0.0.0.0:8080",
        "method": "GET",
        "host": "api.example.com",
        "target": "/v1/hello?to=world",
        "route": "/v1",
        "pool": "greeter",
        "policy": "p2c",
        "status": 200,
        "failure": None,
        "no_pick": None,
        "bytes_in": 0,
        "bytes_out": 14,
        "received_ms": 0.5,
        "duration_ms": 15.0,
    }
    pick = shown.pop("pick")
    assert shown == {
        "backend": attempt.backend.id,
        "address": attempt.backend.spec.address,
        "status": 200,
        "failure": None,
        "redialled": False,
        "reused_connection": False,
        "sent": 0,
        "received": 14,
        "picked_ms": 1.0,
        "connected_ms": 2.0,
        "first_byte_ms": 11.0,
        "ended_ms": 13.0,
    }
    assert pick["reason"] == "not the busier of two drawn at random"
    assert [(each["id"], each["in_flight"]) for each in pick["candidates"]] == [
        ("greeter-1", 4),
        ("greeter-2", 0),
        ("greeter-3", 1),
    ]
    assert [each["id"] for each in pick["candidates"] if each["picked"]] == [attempt.backend.id]
    assert sum(each["drawn"] for each in pick["candidates"]) == 2
    assert pick["candidates_total"] == 3
    assert pick["excluded"] == [
        {"id": "greeter-4", "reason": "unhealthy"},
        {"id": "greeter-5", "reason": "draining"},
    ]


def test_of_a_large_pool_only_what_was_drawn_and_always_the_picked_one():
    drawn = through_json(made_exchange(1, [made_attempt(made_pool(40))]))["attempts"][0]["pick"]
    assert len(drawn["candidates"]) == 2
    assert drawn["candidates_total"] == 40
    blind = through_json(made_exchange(1, [made_attempt(made_pool(40, policy="random"))]))
    [candidate] = blind["attempts"][0]["pick"]["candidates"]
    assert candidate["picked"]
    assert candidate["in_flight"] is None
    assert "and 39 more" in explain(blind)


def test_panic_is_explained():
    pool = made_pool()
    pool.configure(PoolRules(panic_threshold=0.5))
    for backend in list(pool.backends.values())[:2]:
        pool.set_health(backend, False)
    record = through_json(made_exchange(1, [made_attempt(pool)]))
    assert record["attempts"][0]["pick"]["panic"] == "only 1 of 3 can be used, less than 50%"
    assert "well or not: only 1 of 3 can be used, less than 50%." in explain(record)
    assert record["attempts"][0]["pick"]["candidates_total"] == 3


def test_what_never_happened_is_null():
    attempt = made_attempt(made_pool(), failure=CONNECT_FAILED)
    attempt.seen = None
    record = through_json(made_exchange(1, [attempt], CONNECT_FAILED, status=502))
    [shown] = record["attempts"]
    assert shown["connected_ms"] is None
    assert shown["first_byte_ms"] is None
    assert shown["pick"] is None
    assert record["failure"] == {
        "name": "connect_failed",
        "fault": "backend",
        "message": "The backend could not be reached.",
    }
    assert "not recorded" in explain(record)


def test_the_explanation_as_a_whole():
    pool = made_pool(4, seed=SEED_THAT_DRAWS_ONE_AND_TWO)
    for backend, load in zip(pool.backends.values(), (4, 12, 1, 0), strict=True):
        backend.own = load
    pool.set_state(pool.backends["greeter-4"], "disabled")
    exchange = made_exchange(1, [made_attempt(pool)])
    exchange.bytes_in = 3000
    assert explain(through_json(exchange)) == (
        "Request 018bcfe5-0000-7000-8000-000000000001\n"
        "\n"
        "  asked   GET api.example.com/v1/hello?to=world, 2.9 KiB of body\n"
        "  by      10.1.2.3, through 0.0.0.0:8080\n"
        "  at      2023-11-14T22:15:00.000Z\n"
        "  led to  route /v1, pool greeter (policy p2c)\n"
        "  got     200, 14 B of body, after 15.00 ms\n"
        "\n"
        "Attempt: greeter-1 at 10.0.0.1:9000\n"
        "\n"
        "  3 candidates; compared were greeter-1 and greeter-2.\n"
        "  Picked greeter-1: not the busier of two drawn at random.\n"
        "\n"
        "     backend    in flight  weight\n"
        " ->  greeter-1          4       1  picked\n"
        "     greeter-2         12       1  compared\n"
        "     greeter-3          1       1\n"
        "\n"
        "  Left out: greeter-4 (disabled).\n"
        "\n"
        "     1.00 ms  +1.00  picked\n"
        "     2.00 ms  +1.00  a new connection opened\n"
        "    11.00 ms  +9.00  head of the answer: 200\n"
        "    13.00 ms  +2.00  last byte, 14 B of body received\n"
    )


def test_scores_tiers_zones_and_the_shadow_are_there_where_they_tell_something():
    pool = made_pool(3, policy="peak_ewma")
    pool.update(
        BackendSpec(f"b{number}", "h", 1, tier=number % 2, zone="east" if number else "west")
        for number in range(3)
    )
    pool.set_health(pool.backends["b2"], False)
    pool.replace_shadow(policy_class("round_robin")(pool.clock, Random(1)))
    for backend, seconds in zip(pool.backends.values(), (0.25, 0.02, 0.5), strict=True):
        pool.start(backend)
        pool.end(backend, 100.0 - seconds, None, 200)
    pool.backends["b0"].own, pool.backends["b1"].own = 2, 1
    [shown] = through_json(made_exchange(1, [made_attempt(pool)]))["attempts"]
    by_id = {each["id"]: each for each in shown["pick"]["candidates"]}
    assert [(each["tier"], each["zone"]) for each in by_id.values()] == [(0, "west"), (1, "east")]
    assert {each["id"]: each["score"] for each in by_id.values()} == {"b0": 0.75, "b1": 0.04}
    assert shown["pick"]["shadow"]["policy"] == "round_robin"
    text = explain(through_json(made_exchange(1, [made_attempt(pool)])))
    assert "     backend  in flight  weight  score  tier  zone\n" in text
    assert "The shadow policy round_robin would have taken " in text


def scores_of(policy, options, loads, weights):
    pool = made_pool(1)
    pool.replace_policy(policy_class(policy)(pool.clock, Random(1), **options))
    pool.update(BackendSpec(f"b{number}", "h", 1, weight=weight) for number, weight in enumerate(weights))
    for backend, load in zip(pool.backends.values(), loads, strict=True):
        backend.own = load
    exchange = made_exchange(1, [made_attempt(pool)])
    [shown] = through_json(exchange)["attempts"]
    return [each["score"] for each in shown["pick"]["candidates"]], explain(through_json(exchange))


@pytest.mark.parametrize(
    ("policy", "options", "scores"),
    [
        ("p2c", {}, [2.5, 1.0, 0.25]),
        ("aperture", {}, [2.5, 1.0, 0.25]),
        ("least_request", {"choices": 2}, [2.5, 1.0, 0.25]),
        ("least_request", {}, [2.0, 0.0, 0.0]),
        ("random", {}, [None, None, None]),
    ],
)
def test_policies_that_go_by_load_have_scores_by_weight(policy, options, scores):
    found, text = scores_of(policy, options, loads=(4, 0, 0), weights=(2, 1, 4))
    assert found == scores
    assert ("in flight  weight  score\n" in text) is (scores[0] is not None)


def test_scores_that_say_what_is_in_flight_need_no_column():
    found, text = scores_of("p2c", {}, loads=(4, 0, 7), weights=(1, 1, 1))
    assert found == [5.0, 1.0, 8.0]
    assert "score" not in text


def test_a_newcomer_has_the_score_of_the_weight_that_it_has_so_far():
    clock = VirtualClock()
    pool = Pool("slow", policy_class("p2c")(clock, Random(1)), clock, rules=PoolRules(slow_start=60.0))
    pool.update([BackendSpec("old", "h", 1)])
    pool.update([BackendSpec("old", "h", 1), BackendSpec("new", "h", 2)])
    [shown] = through_json(made_exchange(1, [made_attempt(pool)]))["attempts"]
    assert {each["id"]: each["score"] for each in shown["pick"]["candidates"]} == {"old": 1.0, "new": 10.0}


def test_a_tunnel_in_words():
    attempt = made_attempt(made_pool(1))
    attempt.status, attempt.sent, attempt.received = 101, 3000, 14
    text = explain(through_json(made_exchange(1, [attempt], status=101)))
    assert "both sides have ended: 2.9 KiB sent, 14 B received after the switch to another protocol\n" in text


def test_a_request_that_was_turned_away_in_words():
    text = explain(through_json(made_exchange(1, [], RATE_LIMITED, status=429)))
    assert "rate_limited (client)" in text
    assert text.endswith("\nIt was answered without a backend.\n")


def test_a_redial_is_told_from_a_second_pick():
    pool = made_pool()
    first = made_attempt(pool, failure=RESET)
    first.reused = True
    again = made_attempt(pool, at=100.01)
    again.seen = first.seen
    record = through_json(made_exchange(1, [first, again]))
    assert [each["redialled"] for each in record["attempts"]] == [False, True]
    text = explain(record)
    assert "Attempt 1: " in text
    assert "Attempt 2: " in text
    assert text.count("candidates") == 1
    assert "an idle connection taken" not in text  # it is never said of one that got none
    assert "failed: reset. The backend closed the connection without an answer." in text

    other = made_attempt(pool, at=100.02)
    assert not through_json(made_exchange(2, [first, other]))["attempts"][1]["redialled"]


def test_failures_in_words():
    nobody = made_exchange(1, [], NO_ELIGIBLE, status=503)
    assert "got     503, 14 B of body, after 15.00 ms: no_eligible_backend (balancer). No backend" in explain(
        through_json(nobody)
    )
    cut = made_exchange(2, [made_attempt(made_pool(1), failure=RESPONSE_TIMEOUT)], RESPONSE_TIMEOUT, status=0)
    text = explain(through_json(cut))
    assert "got     no answer" in text
    assert "  Picked greeter-1: the only candidate." in text
    unrouted = made_exchange(3, [], NO_ELIGIBLE, status=404)
    unrouted.pool = unrouted.route = ""
    assert "led to  no pool" in explain(through_json(unrouted))


def test_a_client_cant_steer_the_terminal():
    exchange = made_exchange(1)
    exchange.target = b"/\x1b[2J\x07\n\xc2\x9b\xff\xe2\x80\xae"
    record = through_json(exchange)
    text = explain(record)
    assert all(each.isprintable() for each in text.replace("\n", ""))
    assert r"/\x1b[2J\x07\n\x9b\xff\u202e" in text


def test_why_nobody_was_picked():
    pool = made_pool(2)
    for backend in list(pool.backends.values()):
        pool.set_health(backend, False)
    assert pool.pick(None) is NO_ELIGIBLE
    exchange = made_exchange(1, failure=NO_ELIGIBLE, status=503)
    exchange.view = pool.view
    text = explain(through_json(exchange))
    assert text.endswith(
        "No backend was picked. Left out: greeter-1 (unhealthy) and greeter-2 (unhealthy).\n"
    )
    assert "policy p2c" in text


def test_of_many_left_out_the_first_are_named():
    pool = made_pool(20)
    for backend in list(pool.backends.values())[:12]:
        pool.set_state(backend, "draining")
    text = explain(through_json(made_exchange(1, [made_attempt(pool)])))
    assert "greeter-8 (draining) and 4 more." in text
