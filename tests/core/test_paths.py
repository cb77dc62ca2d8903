"""What backends may make of a path, and that no guard of a route is got around by it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.access import Networks
from lb.core.answers import FixedAnswer
from lb.core.failure import AMBIGUOUS_PATH, NO_ROUTE
from lb.core.paths import is_odd, readings
from lb.core.rate import RateLimit
from lb.core.route import Match, Quota, Route, RouteRules, Routes, Target
from tests.core.fleet import made_pool
from tests.core.messages import made_request

CLOSED = RouteRules(networks=Networks(["unix"], []))


def route(prefix: str, rules: RouteRules | None = None, quota: Quota | None = None) -> Route:
    return Route(Match(path_prefix=prefix), [Target(made_pool())], rules=rules, quota=quota)


ADMIN, OPEN, REST = route("/admin", CLOSED), route("/open"), route("/")
DEEP = route("/x/admin", CLOSED)
TABLE = Routes([ADMIN, DEEP, OPEN, REST])


@pytest.mark.parametrize(
    "path",
    [
        b"/%61dmin",
        b"/%61dmin?q",
        b"/adm%69n/users",
        b"/admin%2fusers",
        b"/admin%5Cusers",
        b"//admin",
        b"/./admin",
        b"/open/../admin",
        b"/open/%2e%2e/admin",
        b"/open/.%2E/admin/",
        b"/open%2f..%2fadmin",
        b"/open%5c..%5cadmin",
        b"/open/..;/admin",
        b"/open/..;a=b/admin",
        b"/admin;jsessionid=1",
        b"/;x/admin",
        b"/open//../admin",
        b"/a/b/../../admin",
        b"/../admin",
        b"/admin/..",
        b"/admin/../open",
        b"/admin/%2e%2e/open",
        b"/%61dmin/x%2f..%2f..%2fopen",  # who leaves %2F alone finds one segment under /admin
        b"/x/%2e%2e/../admin",
        b"/x//../admin",  # /admin, or /x/admin where an empty segment is one
        b"/x" + b"/." * 300,
    ],
)
def test_what_leads_elsewhere_when_it_is_read_otherwise_leads_nowhere(path: bytes) -> None:
    request = made_request(path)
    assert TABLE.find(request) is None
    assert TABLE.why_none(request) is AMBIGUOUS_PATH
    assert request.target == path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/admin", ADMIN),
        (b"/admin/%C3%A4.html", ADMIN),
        (b"/admin/a//b;c=d/./e%2ff", ADMIN),
        (b"/open/../other", OPEN),  # neither of the two is guarded
        (b"/open/caf%C3%A9//x", OPEN),
        (b"/%25%36%31dmin", REST),  # to be decoded twice: nobody does, who reads a URL right
        (b"/open?next=/../admin", OPEN),
        (b"/open?next=%2e%2e//admin;", OPEN),
        (b"/administrator/..;/x", REST),
        (b"/", REST),
        (b"*", REST),
    ],
)
def test_the_rest_goes_where_it_says(path: bytes, found: Route) -> None:
    assert TABLE.find(made_request(path)) is found


def test_where_nothing_is_guarded_nothing_is_refused() -> None:
    table = Routes([route("/admin"), route("/admin2", RouteRules(host=b"a")), OPEN])
    assert table.find(made_request(b"//admin")) is None
    assert table.why_none(made_request(b"//admin")) is NO_ROUTE
    assert table.find(made_request(b"/open/../admin")) is OPEN


@pytest.mark.parametrize(
    "guarded",
    [
        route("/admin", RouteRules(body=10)),
        route("/admin", RouteRules(answer=FixedAnswer(404))),
        route("/admin", quota=Quota(RateLimit(1, 1))),
    ],
)
def test_whatever_a_route_asks_is_a_guard(guarded: Route) -> None:
    table = Routes([guarded, REST])
    assert table.find(made_request(b"/%61dmin")) is None
    assert table.why_none(made_request(b"/%61dmin")) is AMBIGUOUS_PATH


def test_no_path_at_all() -> None:
    table = Routes([ADMIN])
    assert table.find(made_request(b"/other")) is None
    assert table.why_none(made_request(b"/other")) is NO_ROUTE
    assert table.why_none(made_request(b"/other/../admin")) is AMBIGUOUS_PATH


def meant(path: bytes) -> bytes:
    """As a strict reader of RFC 3986 has it, who decodes first and merges slashes: by hand, and slowly."""
    from posixpath import normpath
    from urllib.parse import unquote_to_bytes

    return normpath(b"/" + unquote_to_bytes(path).lstrip(b"/"))


PIECES = st.sampled_from(
    [b"/", b"//", b"/.", b"/..", b"%2e", b"%2F", b"%61", b"admin", b"open", b"x", b"/admin", b"/open"]
)


@given(st.lists(PIECES, max_size=8).map(lambda pieces: b"/" + b"".join(pieces)))
def test_who_reads_it_by_the_book_never_gets_behind_a_guard(path: bytes) -> None:
    found = TABLE.find(made_request(path))
    if found is not None:
        request = made_request(meant(path))
        assert TABLE.find(request) is found or not (found.guards or Routes([ADMIN, DEEP]).find(request))


@given(st.binary(max_size=60))
def test_any_bytes_have_readings(data: bytes) -> None:
    found = readings(b"/" + data)
    assert found
    assert all(each.startswith(b"/") for each in found)
    if not is_odd(b"/" + data):
        assert found == {b"/" + data.partition(b"?")[0]}
