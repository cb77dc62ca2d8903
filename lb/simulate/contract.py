"""The contract that every policy keeps, as checks of a class: for `lb test-policy`, and for our own tests.

Each check raises `Broken` with what went wrong. `binding` ones every policy has to pass; what the others find
may be what its author wants.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from lb.balance import Balancer
from lb.core.backend import DISABLED, DRAINING
from lb.core.failure import NO_BACKENDS, NO_ELIGIBLE
from lb.simulate.driving import (
    NAMES,
    Broken,
    Make,
    Traffic,
    ensure,
    narrow_walk,
    numbered,
    picked,
    pool_of,
    random_steps,
    served,
    specs,
    walk,
)
from lb.simulate.keys import keyed_request

SIGMAS = 5
"""A count that is further from what it should be than so many standard deviations is no chance any more."""


# --- what every policy has to keep ---


def excluded_is_never_picked(make: Make) -> None:
    for reason in ("weight 0", "unhealthy", DRAINING, DISABLED):
        pool, _ = pool_of(make, specs(a=1, excluded=2, b=1))
        backend = pool.backends["excluded"]
        served(pool, 10)
        if reason == "weight 0":
            pool.set_weight(backend, 0)
        elif reason == "unhealthy":
            pool.set_health(backend, False)
        else:
            pool.set_state(backend, reason)
        ensure("excluded" not in served(pool, 500), f"it picked a backend that was {reason}")


def none_and_one_are_no_question(make: Make) -> None:
    pool, _ = pool_of(make, ())
    ensure(pool.pick(None) is NO_BACKENDS, "a pool of none had a backend")
    pool.update(specs(a=0))
    ensure(pool.pick(None) is NO_ELIGIBLE, "a pool of weight 0 had a backend")
    pool.update(specs(a=3))
    ensure(served(pool, 20) == ["a"] * 20, "the only one was not picked")
    pool.update(specs(a=3, b=1))
    served(pool, 200)


def tried_ones_are_left_out(make: Make) -> None:
    pool, _ = pool_of(make, specs(a=1, b=2, c=1, d=5))
    a, b, c, d = pool.backends.values()
    for _ in range(100):
        first = picked(pool)
        ensure(picked(pool, [first]) is not first, "it picked the one that had just been tried")
        ensure(picked(pool, [a, b, d]) is c, "of three tried ones, it did not pick the fourth")
        second = picked(pool, [b, d])
        ensure(second in (a, c), "it picked one that had been tried")
        pool.start(second)  # a retry is an attempt like any other
        pool.end(second, pool.clock.time(), None, 200)


def it_says_why(make: Make) -> None:
    pool, _ = pool_of(make, numbered([1, 2, 1, 3, 1]))
    for _ in range(100):
        backend = picked(pool)
        _, _, looked, reason, *_ = pool.seen()
        ensure(isinstance(reason, str) and reason, f"its reason must be a text, not {reason!r}")
        ensure(set(looked) <= set(pool.eligible), "it looked at backends that aren't eligible")
        ensure(not looked or backend in looked, "`looked` has to hold the one that it picked")
        pool.start(backend)


def same_seed_same_picks(make: Make) -> None:
    first, again = _busy_picks(make, 7), _busy_picks(make, 7)
    at = next((place for place, pair in enumerate(zip(first, again, strict=True)) if pair[0] != pair[1]), -1)
    ensure(
        at < 0, f"pick {at + 1} differs: chance has to come from `rng`, time from `clock`, state from `self`"
    )


def _busy_picks(make: Make, seed: int) -> list[str]:
    """Who gets 300 attempts of uneven length, 25 of them at a time."""
    pool, clock = pool_of(make, specs(a=1, b=2, c=3, d=1), seed)
    traffic = Traffic(pool, clock)
    lengths = Random(1)
    names = []
    for _ in range(300):
        names.append(traffic.request(lengths.expovariate(1 / 0.25)).id)
        traffic.passes(0.01)
    return names


def it_changes_no_backend(make: Make) -> None:
    pool, _ = pool_of(make, specs(a=1, b=2, c=3))

    def state() -> list[tuple[object, ...]]:
        return [
            (each.weight, each.own, each.state, each.healthy, dict(each.requests), each.candidate_of is pool)
            for each in pool.backends.values()
        ]

    for _ in range(20):
        before = state()
        backend = picked(pool)
        ensure(state() == before, "a pick changed a backend: only the pool writes these")
        pool.start(backend)


def whatever_happens(make: Make) -> None:
    for seed in range(100):
        walk(make, random_steps(Random(seed)))


def whatever_happens_with_all_rules(make: Make) -> None:
    for seed in range(100):
        rng = Random(seed)
        narrow_walk(make, random_steps(rng), [rng.randint(0, 2) for _ in NAMES])


# --- what most policies do ---


def every_backend_is_reached(make: Make) -> None:
    """The chance that any of 50 is left out of 1,250 draws is 50 * 0.98^1250: once in a billion times."""
    pool, _ = pool_of(make, numbered([1] * 50))
    left = len(set(pool.backends) - set(served(pool, 1250)))
    ensure(not left, f"{left} of 50 idle backends got none of 1,250 requests")


def idle_traffic_goes_by_weight(make: Make) -> None:
    for weights in ((1, 1, 1), (2, 1), (5, 1, 1), (1, 2, 3, 4), (1,) * 12, (100, 1)):
        pool, _ = pool_of(make, numbered(weights))
        _by_share(served(pool, 3000), {f"b{n}": weight / sum(weights) for n, weight in enumerate(weights)})


def a_new_weight_counts(make: Make) -> None:
    pool, _ = pool_of(make, specs(a=1, b=1, c=1))
    served(pool, 100)
    pool.set_weight(pool.backends["b"], 8)
    _by_share(served(pool, 3000), {"a": 0.1, "b": 0.8, "c": 0.1})


def a_newcomer_gets_its_share(make: Make) -> None:
    pool, _ = pool_of(make, specs(a=1, b=1, c=1))
    served(pool, 3000)
    pool.update(specs(a=1, b=1, c=1, d=1))
    _by_share(served(pool, 2000), dict.fromkeys("abcd", 0.25))


def _by_share(names: Sequence[str], shares: Mapping[str, float]) -> None:
    counts, draws = Counter(names), len(names)
    for name, share in shares.items():
        stray = SIGMAS * (draws * share * (1 - share)) ** 0.5
        ensure(
            abs(counts[name] - draws * share) <= stray,
            f"{name} got {counts[name] / draws:.1%} of {draws:,} requests, not its {share:.1%} by weight",
        )


def a_key_stays_where_it_is(make: Make) -> None:
    pool, _ = pool_of(make, numbered([1] * 10))
    if pool.key_of is None:
        return
    requests = [keyed_request(b"key-%d" % number) for number in range(500)]
    before = [picked(pool, request=request).id for request in requests]
    ensure([picked(pool, request=each).id for each in requests] == before, "a key changed its backend")
    pool.set_health(pool.backends["b3"], False)
    after = [picked(pool, request=each).id for each in requests]
    others = [(old, new) for old, new in zip(before, after, strict=True) if old not in (new, "b3")]
    ensure(len(others) < 25, f"when one of ten went, {len(others)} of 500 keys moved that were not on it")


# --- all of it ---


@dataclass(frozen=True, slots=True)
class Check:
    """One of the checks: what it is about, in words; and whether a policy has to pass it."""

    promise: str
    run: Callable[[Make], None]
    binding: bool = True
    by_weight: bool = False  # means nothing to a policy that doesn't go by weight


CHECKS = (
    Check("one that is excluded is never picked", excluded_is_never_picked),
    Check("a pool of none and of one is no question", none_and_one_are_no_question),
    Check("those tried already are left out", tried_ones_are_left_out),
    Check("a pick says why, and from whom", it_says_why),
    Check("the same seed gives the same picks", same_seed_same_picks),
    Check("a pick changes no backend", it_changes_no_backend),
    Check("whatever happens to the pool, it copes", whatever_happens),
    Check("so it does with limits, ejections, slow starts and tiers", whatever_happens_with_all_rules),
    Check("every backend is reached", every_backend_is_reached, False),
    Check("idle traffic goes by weight", idle_traffic_goes_by_weight, False, True),
    Check("a new weight counts from now on", a_new_weight_counts, False, True),
    Check("a newcomer gets its share and no more", a_newcomer_gets_its_share, False, True),
    Check("a key stays where it is", a_key_stays_where_it_is, False),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a check. `found` is empty where it passed."""

    check: Check
    found: str = ""


class _Complaints(logging.Handler):
    """What the pool says of a policy that failed: it goes on without it, and we must not."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.error is None and record.exc_info:
            self.error = record.exc_info[1]


def judged(make: Make, check: Check) -> Verdict:
    """Runs a check. A policy that raises has not passed, though a pool would go on."""
    pool_log, heard = logging.getLogger("lb.pool"), _Complaints()
    propagate, pool_log.propagate = pool_log.propagate, False
    pool_log.addHandler(heard)
    try:
        check.run(make)
    except Broken as error:
        found = str(error)
    except Exception as error:  # noqa: BLE001 - whatever a user's class does
        found = _raised(error)
    else:
        found = ""
    finally:
        pool_log.removeHandler(heard)
        pool_log.propagate = propagate
    return Verdict(check, found if heard.error is None else _raised(heard.error))


def verdicts(make: Make, weighted: bool = True) -> Iterator[Verdict]:
    """One check after the other, those left out that mean nothing to it."""
    for check in CHECKS:
        if weighted or not check.by_weight:
            yield judged(make, check)


def _raised(error: BaseException) -> str:
    words = " ".join(str(error).split())
    if isinstance(error, LookupError) and words.startswith("it picked "):  # the pool's own words
        return words
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f" in {code.co_name} ({code.co_filename}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"it raised {type(error).__name__}: {words}{place}"


def maker(policy: type[Balancer], options: Mapping[str, Any]) -> Make:
    return lambda clock, rng: policy(clock, rng, **options)
