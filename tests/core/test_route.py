"""Which requests a route takes, where it sends them, and what it strips."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.message import Request
from lb.core.pool import Pool
from lb.core.rate import RateLimit
from lb.core.route import Match, Quota, Route, Routes, Target, host_name
from tests.core.fleet import made_pool
from tests.core.messages import made_request


def route_to(pool: Pool, match: Match | None = None, strip_prefix: str = "", name: str = "") -> Route:
    return Route(match or Match(), [Target(pool)], strip_prefix, name=name)


def takes(match: Match, one: Request) -> bool:
    return route_to(made_pool(), match).matches(one)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"shop.test", b"shop.test"),
        (b"SHOP.Test", b"shop.test"),
        (b"shop.test.", b"shop.test"),
        (b"shop.test:8080", b"shop.test"),
        (b"shop.test.:8080", b"shop.test"),
        (b"shop.test:", b"shop.test"),
        (b"127.0.0.1:80", b"127.0.0.1"),
        (b"[::1]", b"[::1]"),
        (b"[::1]:8080", b"[::1]"),
        (b"[FE80::A]:8080", b"[fe80::a]"),
        (b"", b""),
    ],
)
def test_a_host_is_compared_by_its_name_alone(host: bytes, name: bytes) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize(
    ("hosts", "host", "matches"),
    [
        (("shop.test",), b"shop.test", True),
        (("shop.test",), b"Shop.TEST.:8080", True),
        (("shop.test",), b"www.shop.test", False),
        (("shop.test",), b"shop.test.evil.test", False),
        (("shop.test",), b"notshop.test", False),
        (("*.shop.test",), b"www.shop.test", True),
        (("*.shop.test",), b"WWW.SHOP.TEST:443", True),
        (("*.shop.test",), b"a.b.shop.test", True),
        (("*.shop.test",), b"shop.test", False),
        (("*.shop.test",), b"notshop.test", False),
        (("*.shop.test",), b"www.shop.test.evil.test", False),
        (("one.test", "*.two.test"), b"one.test", True),
        (("one.test", "*.two.test"), b"a.two.test", True),
        (("one.test", "*.two.test"), b"a.one.test", False),
        (("[::1]",), b"[::1]:9000", True),
        (("[::1]",), b"[::2]:9000", False),
        (("shop.test",), b"", False),
        (("*.shop.test",), b"", False),
        ((), b"", True),
    ],
)
def test_hosts(hosts: tuple[str, ...], host: bytes, matches: bool) -> None:
    assert takes(Match(hosts=hosts), made_request(host=host)) is matches


@pytest.mark.parametrize("prefix", ["/v1", "/v1/"])
@pytest.mark.parametrize(
    ("target", "matches"),
    [
        (b"/v1", True),
        (b"/v1/", True),
        (b"/v1/users", True),
        (b"/v1?q=/v2", True),
        (b"/v10", False),
        (b"/v1.1", False),
        (b"/v", False),
        (b"/V1", False),
        (b"/", False),
        (b"/?/v1", False),
        (b"/a/v1", False),
        (b"*", False),
    ],
)
def test_a_path_prefix_ends_on_a_segment_border(prefix: str, target: bytes, matches: bool) -> None:
    assert takes(Match(path_prefix=prefix), made_request(target)) is matches


def test_methods_are_case_sensitive() -> None:
    match = Match(methods=("GET", "HEAD"))
    assert takes(match, made_request(method=b"GET"))
    assert takes(match, made_request(method=b"HEAD"))
    assert not takes(match, made_request(method=b"POST"))
    assert not takes(match, made_request(method=b"get"))


@pytest.mark.parametrize(
    ("fields", "matches"),
    [
        ((b"X-Beta: 1",), True),
        ((b"x-beta:1 ",), True),
        ((b"X-Beta: 2",), False),
        ((b"X-Beta: 1", b"X-Beta: 1"), False),
        ((b"X-Beta:",), False),
        ((b"X-Beta-Too: 1",), False),
        ((), False),
    ],
)
def test_headers_match_by_their_whole_value(fields: tuple[bytes, ...], matches: bool) -> None:
    assert takes(Match(headers={"X-Beta": "1"}), made_request(b"/", *fields)) is matches


def test_every_part_of_a_match_has_to_hold() -> None:
    match = Match(hosts=("shop.test",), path_prefix="/v1", methods=("GET",), headers={"x-beta": "1"})
    assert takes(match, made_request(b"/v1/a", b"X-Beta: 1"))
    assert not takes(match, made_request(b"/v2/a", b"X-Beta: 1"))
    assert not takes(match, made_request(b"/v1/a", b"X-Beta: 1", host=b"other.test"))
    assert not takes(match, made_request(b"/v1/a", b"X-Beta: 1", method=b"PUT"))
    assert not takes(match, made_request(b"/v1/a"))


class TestTheTable:
    def test_the_first_that_matches_wins(self) -> None:
        pool = made_pool()
        narrow = route_to(pool, Match(path_prefix="/v1/users"), name="narrow")
        wide = route_to(pool, Match(path_prefix="/v1"), name="wide")
        assert Routes([narrow, wide]).find(made_request(b"/v1/users/7")) is narrow
        assert Routes([wide, narrow]).find(made_request(b"/v1/users/7")) is wide
        assert Routes([narrow, wide]).find(made_request(b"/v1/orders")) is wide

    def test_none_may_match(self) -> None:
        table = Routes([route_to(made_pool(), Match(path_prefix="/v1"))])
        assert table.find(made_request(b"/v2")) is None
        assert table.catch_all is None
        assert Routes([]).find(made_request()) is None
        assert Routes([]).catch_all is None

    def test_a_first_route_without_conditions_takes_all(self) -> None:
        pool = made_pool()
        everything = route_to(pool, Match(path_prefix="/"))
        special = route_to(pool, Match(path_prefix="/v1"))
        assert Routes([everything, special]).catch_all is everything
        assert Routes([special, everything]).catch_all is None
        assert Routes([special, everything]).find(made_request(b"*", method=b"OPTIONS")) is everything


@pytest.mark.parametrize(
    ("strip", "target", "rewritten"),
    [
        ("", b"/v1/users", b"/v1/users"),
        ("/v1", b"/v1/users?q=1", b"/users?q=1"),
        ("/v1/", b"/v1/users", b"/users"),
        ("/v1", b"/v1", b"/"),
        ("/v1", b"/v1/", b"/"),
        ("/v1", b"/v1?q=1", b"/?q=1"),
        ("/v1", b"/v1//evil.test", b"//evil.test"),
    ],
)
def test_a_prefix_is_stripped(strip: str, target: bytes, rewritten: bytes) -> None:
    assert route_to(made_pool(), Match(path_prefix=strip or "/"), strip).rewrite(target) == rewritten


class TestSplit:
    def test_shares_are_those_asked_for(self) -> None:
        stable, canary = made_pool(), made_pool()
        route = Route(Match(), [Target(stable, 95), Target(canary, 5)], rng=Random(1))
        count = 20_000
        drawn = Counter(route.choose().pool for _ in range(count))
        sigma = (count * 0.05 * 0.95) ** 0.5  # of a binomial
        assert drawn[stable] + drawn[canary] == count
        assert abs(drawn[canary] - 0.05 * count) < 5 * sigma

    def test_a_share_of_nothing_gets_nothing(self) -> None:
        first, none, last = made_pool(), made_pool(), made_pool()
        route = Route(Match(), [Target(first), Target(none, 0), Target(last)], rng=Random(1))
        assert {route.choose().pool for _ in range(1000)} == {first, last}

    def test_a_single_pool_is_known_beforehand(self) -> None:
        pool = made_pool()
        assert (target := route_to(pool).target) is not None
        assert target.pool is pool
        assert route_to(pool).choose().pool is pool
        assert Route(Match(), [Target(pool), Target(made_pool())]).target is None


# --- any table, any request, beside the plainest reading of the rules ---

hosts = st.sampled_from(["a.test", "b.test", "*.a.test", "*.test", "[::1]", "x.a.test"])
prefixes = st.sampled_from(["/", "/v1", "/v1/", "/v1/a", "/v10", "/V1", "//"])
matches = st.builds(
    Match,
    hosts=st.lists(hosts, max_size=2).map(tuple),
    path_prefix=prefixes,
    methods=st.lists(st.sampled_from(["GET", "POST"]), max_size=2).map(tuple),
    headers=st.dictionaries(
        st.sampled_from(["x-beta", "X-Plan"]), st.sampled_from(["1", "2", ""]), max_size=2
    ),
)
asked_hosts = st.sampled_from(
    [
        "a.test",
        "A.TEST:80",
        "a.test.",
        "x.a.test",
        "ya.test",
        "a.test.evil",
        "b.test:1",
        "[::1]:80",
        "test",
        "",
    ]
)
targets = st.sampled_from(
    ["/", "/v1", "/v1?q", "/v1/", "/v1/a/b", "/v10", "/v1a", "/V1", "*", "/%761", "//v1", "//"]
)
sent = st.dictionaries(
    st.sampled_from(["x-beta", "X-BETA", "X-Plan"]), st.sampled_from(["1", "2"]), max_size=2
)


def plainly(match: Match, method: str, host: str, target: str, fields: dict[str, str]) -> bool:
    """As docs/configuration.md has it, in the plainest way."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    name = name.lower().removesuffix(".")
    path, prefix = target.partition("?")[0], match.path_prefix.rstrip("/")
    given_fields = {key.lower(): value for key, value in reversed(fields.items())}
    return (
        (
            not match.hosts
            or any(name == each or (each[0] == "*" and name.endswith(each[1:])) for each in match.hosts)
        )
        and (not prefix or path == prefix or path.startswith(prefix + "/"))
        and (not match.methods or method in match.methods)
        and all(given_fields.get(key.lower()) == value for key, value in match.headers.items())
    )


@given(st.lists(matches, max_size=5), st.sampled_from(["GET", "POST", "PUT"]), asked_hosts, targets, sent)
def test_the_first_that_matches_whatever_is_asked(
    table: list[Match], method: str, host: str, target: str, fields: dict[str, str]
) -> None:
    routes = [route_to(made_pool(), match, name=str(number)) for number, match in enumerate(table)]
    lines = [f"{name}: {value}".encode() for name, value in fields.items()]
    one = made_request(target.encode(), *lines, method=method.encode(), host=host.encode())
    found = Routes(routes).catch_all or Routes(routes).find(one)
    wanted = next((n for n, match in enumerate(table) if plainly(match, method, host, target, fields)), None)
    assert (found and found.name) == (None if wanted is None else str(wanted))


def test_who_has_one_address_of_ipv6_has_them_all_and_is_one_client() -> None:
    quota = Quota(RateLimit(1, 1))
    assert not quota.take(made_request(), "2001:db8::1", 0.0)
    assert quota.take(made_request(), "2001:db8::ffff:2", 0.0)
    assert not quota.take(made_request(), "2001:db8:0:1::1", 0.0)
    assert not quota.take(made_request(), "192.0.2.1", 0.0)
    assert not quota.take(made_request(), "192.0.2.2", 0.0)
