"""A second policy is asked and told the same as the live one, and never heeded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from random import Random

import pytest

from lb.balance import Balancer, policies, policy_class
from lb.core.affinity import key_reader
from lb.core.backend import Backend
from lb.core.failure import Failure
from lb.core.message import Request
from lb.core.pool import Pool
from lb.core.rules import PoolRules, StickyRules
from tests.core.fleet import FirstOfAll, load, made_pool, picked, serve, served, specs


class LastOfAll(Balancer):
    """The other way round, and a diary of what it hears."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.heard: list[str] = []

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        return backends[-1]

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self.heard.append("rebuild " + "".join(each.id for each in backends))

    def on_start(self, backend: Backend) -> None:
        self.heard.append(f"start {backend.id}")

    def on_end(self, backend: Backend, started: float, failure: Failure | None) -> None:
        self.heard.append(f"end {backend.id}")


def made(kind: type[Balancer], pool: Pool) -> Balancer:
    return kind(pool.clock, Random(2))


def shadowed(
    live: str | type[Balancer] = FirstOfAll, shadow: type[Balancer] = LastOfAll
) -> tuple[Pool, Balancer]:
    pool = made_pool(specs(a=1, b=1, c=1), live)
    policy = made(shadow, pool)
    pool.replace_shadow(policy)
    return pool, policy


class TestAShadow:
    def test_does_nothing_but_be_counted(self) -> None:
        pool, _ = shadowed()
        assert served(pool, 5) == ["a"] * 5
        assert pool.shadow_picks == {"other": 5}
        assert (pool.policy_name, pool.shadow_name) == (
            "tests.core.fleet:FirstOfAll",
            "tests.core.test_shadow:LastOfAll",
        )
        pool.update(specs(a=1))
        serve(pool)
        assert pool.shadow_picks == {"other": 5}, "of one candidate nobody is asked"

    def test_the_same(self) -> None:
        pool, _ = shadowed(shadow=FirstOfAll)
        served(pool, 5)
        assert pool.shadow_picks == {"same": 5}

    def test_hears_what_the_live_one_does(self) -> None:
        pool, shadow = shadowed()
        assert isinstance(shadow, LastOfAll)
        serve(pool)
        pool.set_health(pool.backends["a"], False)
        assert shadow.heard == ["rebuild abc", "start a", "end a", "rebuild bc"]

    def test_and_what_was_in_flight_before_it_came(self) -> None:
        pool = made_pool(specs(a=1, b=1), "least_request")
        load(pool, a=2, b=1)
        shadow = made(LastOfAll, pool)
        pool.replace_shadow(shadow)
        assert isinstance(shadow, LastOfAll)
        assert shadow.heard == ["rebuild ab", "start a", "start a", "start b"]
        assert picked(pool).id == "b", "the live one heard of them once"

    @pytest.mark.parametrize("live", policies())
    @pytest.mark.parametrize("shadow", ["least_request", "maglev", "prequal"])
    def test_the_live_ones_picks_are_what_they_would_be(self, live: str, shadow: str) -> None:
        alone = made_pool(specs(a=1, b=2, c=1), live)
        pool, _ = shadowed(live, policy_class(shadow))
        pool.update(specs(a=1, b=2, c=1))
        pool.replace_policy(policy_class(live)(pool.clock, Random(1)))
        assert served(pool, 100) == served(alone, 100)
        assert sum(pool.shadow_picks.values()) == 100
        assert (pool.policy_errors, "failed" in pool.shadow_picks) == (0, False)

    def test_what_it_would_have_taken_is_seen(self) -> None:
        pool, _ = shadowed()
        picked(pool)
        view, *_, choice = pool.seen()
        assert view.shadow == "tests.core.test_shadow:LastOfAll"
        assert choice is pool.backends["c"]
        picked(pool, tried=[pool.backends["a"], pool.backends["b"]])
        assert pool.seen()[-1] is None, "nobody was asked"

    def test_is_asked_about_what_is_left_after_a_failed_attempt(self) -> None:
        pool, _ = shadowed()
        assert picked(pool, tried=[pool.backends["c"]]).id == "a"
        assert pool.seen()[-1] is pool.backends["b"]

    def test_comes_and_goes(self) -> None:
        pool, _ = shadowed("p2c")
        live = pool.policy
        pool.replace_shadow(made(FirstOfAll, pool))
        served(pool, 2)
        pool.replace_shadow(None)
        served(pool, 5)
        assert sum(pool.shadow_picks.values()) == 2
        assert (pool.shadow_name, pool._on_start) == ("", None)
        assert pool.policy is not live
        pool.replace_shadow(None)


class Broken(LastOfAll):
    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        raise ZeroDivisionError("oh")


class Stranger(LastOfAll):
    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        return None  # type: ignore[return-value]


class Deaf(FirstOfAll):
    def rebuild(self, backends: Sequence[Backend]) -> None:
        raise RuntimeError("rebuild")

    def on_start(self, backend: Backend) -> None:
        raise RuntimeError("start")

    def on_end(self, backend: Backend, started: float, failure: Failure | None) -> None:
        raise RuntimeError("end")


class TestOneThatFails:
    @pytest.mark.parametrize("kind", [Broken, Stranger])
    def test_in_a_pick(self, kind: type[Balancer], caplog: pytest.LogCaptureFixture) -> None:
        pool, _ = shadowed(shadow=kind)
        with caplog.at_level(logging.ERROR, "lb.pool"):
            assert served(pool, 5) == ["a"] * 5
        assert (pool.shadow_picks, pool.policy_errors) == ({"failed": 5}, 0)
        [record] = caplog.records
        assert kind.__name__ in record.getMessage()
        assert pool.seen()[-1] is None

    def test_in_a_hook(self) -> None:
        pool, _ = shadowed(shadow=Deaf)
        serve(pool)
        assert (pool.shadow_picks, pool.policy_errors) == ({"failed": 3, "same": 1}, 0)
        assert pool.in_flight == 0

    def test_a_live_one_that_fails_is_counted_as_ever(self) -> None:
        pool, shadow = shadowed(Broken)
        assert serve(pool).id in "abc"
        assert pool.policy_errors == 1
        assert isinstance(shadow, LastOfAll)
        assert [each.partition(" ")[0] for each in shadow.heard] == ["rebuild", "start", "end"]


class ByKey(Balancer):
    """Remembers the keys that it saw."""

    def __init__(self, clock: object, rng: object, key: str) -> None:
        super().__init__(clock, rng)  # type: ignore[arg-type]
        self.key_of = key_reader(key)
        self.keys: list[bytes] = []

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        assert request is not None
        self.keys.append(bytes(request.key))
        return backends[0]


@pytest.mark.parametrize("sticky", [None, StickyRules("lb", secret=b"x")])
def test_each_goes_by_its_own_key(sticky: StickyRules | None) -> None:
    pool = made_pool(specs(a=1, b=1), rules=PoolRules(sticky=sticky))
    live, shadow = ByKey(pool.clock, Random(1), "path"), ByKey(pool.clock, Random(1), "client")
    pool.replace_policy(live)
    pool.replace_shadow(shadow)
    request = Request(b"GET", b"/x", [b"GET /x HTTP/1.1"])
    assert pool.key_of is not None
    request.key = pool.key_of(request, "10.0.0.1")
    pool.pick(request)
    assert (live.keys, shadow.keys) == ([b"/x"], [b"10.0.0.1"])
    assert request.key == b"/x"


def test_a_shadow_alone_may_have_a_key() -> None:
    pool = made_pool(specs(a=1, b=1))
    shadow = ByKey(pool.clock, Random(1), "client")
    pool.replace_shadow(shadow)
    assert pool.key_of is shadow.key_of
