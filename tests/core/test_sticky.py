"""A cookie brings a client back to its backend, for as long as that is there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lb.balance import policies
from lb.core.affinity import key_reader
from lb.core.backend import ACTIVE, DISABLED, DRAINING, Backend, BackendSpec
from lb.core.failure import AT_LIMIT, NO_ELIGIBLE, RESET
from lb.core.message import Request
from lb.core.pool import Pool
from lb.core.rules import OutlierRules, PoolRules, StickyRules
from tests.core.fleet import attempted, ids, load, made_pool, numbered, specs

RULES = StickyRules("lb", "; Path=/", b"secret")
STICKY = PoolRules(sticky=RULES)


def request(*fields: bytes) -> Request:
    return Request(b"GET", b"/", [b"GET / HTTP/1.1", *fields])


def asked(pool: Pool, *fields: bytes) -> Request:
    """A request as it is when the exchange has read its key."""
    made = request(*fields)
    assert pool.key_of is not None
    made.key = pool.key_of(made, "10.0.0.1")
    return made


def cookie_of(pool: Pool, backend: Backend) -> bytes:
    assert pool.sticky is not None
    line = pool.sticky.field(b"", backend, False)
    assert line.startswith(b"\r\nSet-Cookie: lb=")
    assert line.endswith(b"; Path=/")
    return line.removeprefix(b"\r\nSet-Cookie: ").partition(b";")[0]


def sticking(
    names: str = "abc", policy: str = "p2c", rules: PoolRules = STICKY
) -> tuple[Pool, Backend, bytes]:
    """A pool, its backend b, and the cookie that names it."""
    pool = made_pool(specs(**dict.fromkeys(names, 1)), policy, rules=rules)
    backend = pool.backends["b"]
    return pool, backend, b"Cookie: " + cookie_of(pool, backend)


def stays(pool: Pool, backend: Backend, cookie: bytes) -> bool:
    return all(pool.pick(asked(pool, cookie)) is backend for _ in range(20))


class TestComingBack:
    @pytest.mark.parametrize("policy", policies())
    def test_over_any_policy(self, policy: str) -> None:
        pool, backend, cookie = sticking("abcdefgh", policy)
        assert stays(pool, backend, cookie)
        assert pool.seen()[3] == "its cookie lb names it"
        others = {pool.pick(asked(pool, b"X-A: %d" % number)) for number in range(5)}
        assert others <= set(pool.eligible)
        assert pool.policy_errors == 0

    def test_a_client_without_one_gets_one_and_then_no_other(self) -> None:
        pool, backend, cookie = sticking()
        assert pool.sticky is not None
        assert pool.sticky.field(asked(pool).key, backend, False)
        assert pool.sticky.field(asked(pool, cookie).key, backend, False) == b""

    def test_the_policys_own_key_is_there_too(self) -> None:
        pool, _, cookie = sticking("abcdefgh", "ring_hash")
        assert bytes(asked(pool, cookie).key) == b"10.0.0.1"
        assert asked(pool).key == b"10.0.0.1"

    def test_it_says_nothing_and_differs_by_pool_and_secret(self) -> None:
        pool, _, cookie = sticking()
        assert b"test" not in cookie
        assert len(cookie) == len(b"Cookie: lb=") + 20
        other = Pool("other", pool.policy, pool.clock, rules=STICKY)
        other.update(specs(a=1, b=1))
        assert cookie_of(other, other.backends["b"]) not in cookie
        another = made_pool(specs(b=1, c=1), rules=PoolRules(sticky=replace(RULES, secret=b"another")))
        assert cookie_of(another, another.backends["b"]) not in cookie

    def test_another_balancer_with_the_same_secret_knows_it(self) -> None:
        _, _, cookie = sticking()
        pool = made_pool([BackendSpec("b", "elsewhere", 2), *specs(x=1, y=1)], rules=STICKY)
        assert stays(pool, pool.backends["b"], cookie)


@pytest.mark.parametrize("at", range(20))
def test_one_that_was_tampered_with_is_none(at: int) -> None:
    pool, _, cookie = sticking()
    place = len(b"Cookie: lb=") + at
    changed = cookie[:place] + (b"A" if cookie[place : place + 1] != b"A" else b"B") + cookie[place + 1 :]
    key = asked(pool, changed).key
    assert getattr(key, "stuck", None) is None


@pytest.mark.parametrize("value", [b"", b"b", b"127.0.0.1:9001", b"=", b"\xff" * 40, b"A" * 5000])
def test_nonsense_is_none(value: bytes) -> None:
    pool, _, _ = sticking()
    made = asked(pool, b"Cookie: lb=" + value)
    assert not made.key
    assert made.lines == [b"GET / HTTP/1.1"]


class TestTheRequestGoesOnWithoutIt:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ([b"Cookie: OURS"], []),
            ([b"Cookie: a=1; OURS; b=2"], [b"Cookie: a=1; b=2"]),
            ([b"cookie:OURS;a=1"], [b"cookie: a=1"]),
            ([b"Cookie: xlb=1; lbx=2; x=lb"], [b"Cookie: xlb=1; lbx=2; x=lb"]),
            ([b"Accept: lb=1", b"Cookie: a=1", b"Cookie: OURS"], [b"Accept: lb=1", b"Cookie: a=1"]),
            ([b"Cookie: lb=junk; OURS; a=1"], [b"Cookie: a=1"]),
        ],
    )
    def test(self, before: list[bytes], after: list[bytes]) -> None:
        pool, _, cookie = sticking()
        ours = cookie.removeprefix(b"Cookie: ")
        made = asked(pool, *[line.replace(b"OURS", ours) for line in before])
        assert made.lines[1:] == after


class TestWhenItsBackend:
    def another(self, pool: Pool, backend: Backend, cookie: bytes) -> None:
        """Another one serves, and the client is told so."""
        made = asked(pool, cookie)
        chosen = pool.pick(made)
        assert isinstance(chosen, Backend)
        assert chosen is not backend
        assert pool.sticky is not None
        assert cookie_of(pool, chosen) in pool.sticky.field(made.key, chosen, False)

    def test_is_unhealthy(self) -> None:
        pool, backend, cookie = sticking()
        pool.set_health(backend, False)
        self.another(pool, backend, cookie)
        pool.set_health(backend, True)
        assert stays(pool, backend, cookie)

    def test_has_left(self) -> None:
        pool, backend, cookie = sticking()
        pool.update(specs(a=1, c=1))
        self.another(pool, backend, cookie)
        pool.update(specs(a=1, b=1, c=1))
        assert stays(pool, pool.backends["b"], cookie)

    def test_is_disabled_or_of_weight_0(self) -> None:
        pool, backend, cookie = sticking()
        pool.set_state(backend, DISABLED)
        self.another(pool, backend, cookie)
        pool.set_state(backend, ACTIVE)
        pool.set_weight(backend, 0)
        self.another(pool, backend, cookie)

    def test_is_ejected(self) -> None:
        rules = PoolRules(sticky=RULES, outliers=OutlierRules(consecutive_failures=1))
        pool, backend, cookie = sticking(rules=rules)
        attempted(pool, "b", RESET)
        self.another(pool, backend, cookie)

    def test_drains_it_still_serves_its_own_and_nobody_else(self) -> None:
        pool, backend, cookie = sticking()
        pool.set_state(backend, DRAINING)
        assert stays(pool, backend, cookie)
        view, loads, _, reason, *_ = pool.seen()
        assert (ids(view.candidates), len(loads)) == (["b", "a", "c"], 3)
        assert view.excluded == ()
        assert reason == "its cookie lb names it, which it may while it drains"
        assert {pool.pick(asked(pool)) for _ in range(50)} == {pool.backends["a"], pool.backends["c"]}
        pool.set_health(backend, False)
        self.another(pool, backend, cookie)

    def test_drains_and_no_other_is_left(self) -> None:
        pool, backend, cookie = sticking()
        for each in pool.backends.values():
            pool.set_state(each, DRAINING)
        assert stays(pool, backend, cookie)
        assert pool.pick(asked(pool)) is NO_ELIGIBLE

    def test_has_just_failed_this_request(self) -> None:
        pool, backend, cookie = sticking()
        made = asked(pool, cookie)
        another = pool.pick(made, tried=[backend], waited=True)
        assert isinstance(another, Backend)
        assert another is not backend
        assert pool.sticky is not None
        assert pool.sticky.field(made.key, another, True), "the next request is spared the detour"

    def test_is_full_for_the_moment_the_cookie_stays(self) -> None:
        pool, backend, cookie = sticking(rules=PoolRules(sticky=RULES, requests_per_backend=1))
        load(pool, b=1)
        made = asked(pool, cookie)
        another = pool.pick(made)
        assert isinstance(another, Backend)
        assert another is not backend
        assert pool.sticky is not None
        assert pool.sticky.field(made.key, another, False) == b""
        load(pool, a=1, c=1)
        assert pool.pick(asked(pool, cookie)) is AT_LIMIT


class TestAReload:
    def test_it_comes_and_goes(self) -> None:
        pool = made_pool(specs(a=1, b=1, c=1))
        assert pool.key_of is None
        pool.configure(STICKY)
        cookie = b"Cookie: " + cookie_of(pool, pool.backends["b"])
        assert stays(pool, pool.backends["b"], cookie)
        pool.configure(PoolRules())
        assert (pool.key_of, pool.sticky) == (None, None)

    def test_another_secret_makes_the_old_ones_void(self) -> None:
        pool, _, cookie = sticking()
        pool.configure(PoolRules(sticky=replace(RULES, secret=b"new")))
        assert not asked(pool, cookie).key

    def test_another_policy_keeps_it(self) -> None:
        pool, backend, cookie = sticking()
        pool.replace_policy(policies()["maglev"](pool.clock, pool._rng))
        assert stays(pool, backend, cookie)


def test_a_client_that_has_no_address_is_no_matter() -> None:
    assert key_reader("path")(request(), "") == b"/"


def test_a_thousand_backends_have_a_cookie_each() -> None:
    pool = made_pool(numbered([1] * 1000), rules=STICKY)
    assert len({cookie_of(pool, each) for each in pool.backends.values()}) == 1000


def test_the_secret_is_not_shown() -> None:
    assert "secret" not in repr(RULES)
