import re
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.answers import ErrorPage, Redirect

VALUES = {
    "scheme": b"http",
    "host": b"a.example",
    "path": b"/x/y",
    "query": b"?a=b",
    "client": b"10.0.0.1",
    "method": b"GET",
    "request_id": b"0",
    "user": b"",
}


@pytest.mark.parametrize(
    ("to", "path", "expected"),
    [
        ("https://{host}{path}{query}", b"/x/y", b"https://a.example/x/y?a=b"),
        ("https://b.example", b"/x", b"https://b.example"),
        ("{scheme}://b.example/new{path}", b"/x", b"http://b.example/new/x"),
        ("{path}", b"//evil.example/a", b"/evil.example/a"),
        ("{path}", b"/\\evil.example", b"/%5Cevil.example"),
        ("/{path}", b"/evil.example", b"/evil.example"),
        ("https://b.example{path}", b"//evil.example", b"https://b.example//evil.example"),
        ("https://b.example{path}", b'/"<x>|^`{}', b"https://b.example/%22%3Cx%3E%7C%5E%60%7B%7D"),
        ("/a?back={path}", b"/x", b"/a?back=/x"),
    ],
)
def test_where_it_leads(to, path, expected):
    assert Redirect(to, 302).location({**VALUES, "path": path}) == expected


paths = st.text('/\\abe.:@?#%&"<>', max_size=30).map(lambda text: b"/" + text.encode())


@given(paths)
def test_no_path_leads_to_another_host(path):
    """As browsers read it: a backslash is a slash to them."""
    for to in ("{path}", "/{path}", "/new{path}", "{path}{query}"):
        location = Redirect(to, 302).location({**VALUES, "path": path}).decode().replace("\\", "/")
        assert urlsplit(location)[:2] == ("", ""), (to, path, location)
    for to in ("https://b.example{path}", "https://b.example{path}{query}"):
        location = Redirect(to, 302).location({**VALUES, "path": path}).decode().replace("\\", "/")
        assert urlsplit(location)[:2] == ("https", "b.example"), (to, path, location)


@given(st.binary(max_size=30))
def test_it_is_one_line_of_a_uri(path):
    location = Redirect("https://b.example{path}", 302).location({**VALUES, "path": b"/" + path})
    assert re.fullmatch(rb"[!-~]+", location)


def test_whether_it_needs_a_host():
    assert Redirect("https://{host}", 302).needs_host
    assert not Redirect("https://b.example{path}", 302).needs_host


def test_a_page_fills_in_what_it_knows_and_leaves_other_braces():
    page = ErrorPage(
        b"<style>a {color: red}</style>{status} {failure}: {message} {request_id} {x} {", "text/html"
    )
    values = {"request_id": b"id-1", "status": b"502", "failure": b"reset", "message": b"Sorry."}
    assert page.render(values) == b"<style>a {color: red}</style>502 reset: Sorry. id-1 {x} {"
    assert page.content_type == b"text/html"
