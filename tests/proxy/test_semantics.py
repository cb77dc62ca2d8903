"""What an intermediary owes to both sides by RFC 9110 and 9112, where no other page of tests says it."""

from __future__ import annotations

import re

import pytest

from tests.e2e.scene import Scene
from tests.e2e.wire import OK, answer, get, head
from tests.proxy.test_fields import passed

ASKED = (
    'If-Match: "1"',
    'If-None-Match: W/"2", "3"',
    "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
    "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
    'If-Range: "1"',
    "Range: bytes=0-0, -1",
    "Authorization: Basic dTpw",
    "Proxy-Authorization: Basic dTpw",
    "Cache-Control: no-transform",
    "Referer: http://b.example/",
    "Accept-Encoding: gzip;q=0, *",
    "Cookie: a=1",
)
ANSWERED = (
    "Server: theirs",
    "Allow: GET",
    'WWW-Authenticate: Basic realm="a, b", Digest x=1',
    "Proxy-Authenticate: Basic realm=b",
    'ETag: W/"1"',
    "Content-Encoding: gzip",
    "Content-Range: bytes 0-1/2",
    "Warning: 110 - stale",
    "Age: 5",
    "Set-Cookie: a=1",
    "Set-Cookie: b=2, c=3",
    "Retry-After: 5",
    "Date: Thu, 01 Jan 1970 00:00:00 GMT",
)


async def test_what_is_for_the_other_end_passes_untouched(scene: Scene) -> None:
    """Preconditions, ranges, credentials and challenges are none of our business."""
    body = b"\x1f\x8b not even gzip"
    request, response = await passed(scene, get("/a//b/../%2e?q=%zz", *ASKED), answer(body, *ANSWERED))
    assert request.target == "/a//b/../%2e?q=%zz"
    assert head(*ASKED)[:-2] in request.head
    assert head(*ANSWERED)[:-2] in response.head
    assert response.body == body


async def test_unknown_fields_pass_in_both_directions(scene: Scene) -> None:
    fields = ("X-Unknown: 1", "!#$%&'*+-.^`|~: 2", "x-unknown: 3")
    request, response = await passed(scene, get("/", *fields), answer(b"", *fields))
    for message in (request, response):
        assert head(*fields)[:-2] in message.head


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_what_has_no_content_has_no_coding(scene: Scene, status: str) -> None:
    client, backend = await scene.meet()
    await backend.send(head(f"HTTP/1.1 {status}", "Transfer-Encoding: chunked"))
    response = await client.response()
    assert (response.get("transfer-encoding"), response.body) == (None, b"")
    await client.send(get())
    await backend.request()
    await backend.send(OK)
    assert (await client.response()).status == 200


async def test_a_request_line_of_8000_octets_passes(scene: Scene) -> None:
    target = "/" + "a" * (8000 - len("GET / HTTP/1.1"))
    request, _ = await passed(scene, get(target))
    assert request.target == target


OURS = {
    "no Host": (head("GET / HTTP/1.1"), 400),
    "two Hosts": (get("/", "Host: b.example"), 400),
    "a Host that is none": (head("GET / HTTP/1.1", "Host: a b"), 400),
    "a space before the colon": (get("/", "X : a"), 400),
    "a folded line": (get("/", "X: a", " b"), 400),
    "a bare line feed": (b"GET / HTTP/1.1\nHost: a.example\r\n\r\n", 400),
    "a fragment": (get("/a#b"), 400),
    "a coding in HTTP/1.0": (
        head("POST / HTTP/1.0", "Host: a.example", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        400,
    ),
    "a length and a coding": (get("/", "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
    "CONNECT": (head("CONNECT a.example:443 HTTP/1.1", "Host: a.example:443"), 405),
    "TRACE": (head("TRACE / HTTP/1.1", "Host: a.example", "Max-Forwards: 0"), 405),
    "a long target": (get("/" + "a" * 9000), 414),
    "an unknown expectation": (get("/", "Expect: the best"), 417),
    "large fields": (get("/", "X: " + "a" * 70000), 431),
    "many fields": (get("/", *["X: a"] * 200), 431),
    "an unknown method": (head("BREW / HTTP/1.1", "Host: a.example"), 501),
    "an unknown coding": (get("/", "Transfer-Encoding: gzip, chunked"), (400, 501)),
    "another version": (head("GET / HTTP/2.0", "Host: a.example"), 505),
}


@pytest.mark.parametrize(("raw", "status"), OURS.values(), ids=list(OURS))
async def test_a_refusal_is_a_whole_answer(scene: Scene, raw: bytes, status: int | tuple[int, ...]) -> None:
    """With Date, length, ID and `close`, the connection ends, and nothing behind it is looked at."""
    client = await scene.connect()
    await client.send(raw + get("/behind"))
    response = await client.response()
    assert response.status in ((status,) if isinstance(status, int) else status)
    assert response.get("connection") == "close"
    assert response.get("content-length") == str(len(response.body))
    assert (response.get("content-type") or "").startswith("text/plain")
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", response.get("date") or "")
    assert (response.get("x-request-id") or "").encode() in response.body
    assert (response.status == 405) == bool(response.all("allow"))
    assert await client.gone() in ("fin", "rst")
    assert await scene.backend.no_more(0.05)


async def test_what_looks_like_head_is_refused_without_content(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(head("HEAD / HTTP/1.1", "Host: a b"))
    response = await client.response("HEAD")
    assert (response.status, response.get("connection")) == (400, "close")
    assert int(response.get("content-length") or 0) > 0
    assert await client.ended() == "fin"


async def test_https_is_not_asked_for_over_plain_http(scene: Scene) -> None:
    response = await scene.ask(head("GET https://a.example/ HTTP/1.1", "Host: a.example"))
    assert response.status == 400


async def test_a_trailer_that_connection_names_ends_here_in_both_directions(scene: Scene) -> None:
    body = b"2\r\nhi\r\n0\r\nX-Named: 1\r\nX-Stays: 2\r\n\r\n"
    coding = ("Transfer-Encoding: chunked", "Connection: X-Named")
    request, response = await passed(
        scene,
        head("POST / HTTP/1.1", "Host: a.example", "TE: trailers", *coding) + body,
        head("HTTP/1.1 200 OK", *coding) + body,
    )
    assert request.trailers == response.trailers == [("x-stays", b"2")]
    assert request.body == response.body == b"hi"


async def test_chunk_extensions_end_here_and_may_not_go_on_for_ever(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a.example", "Transfer-Encoding: chunked"))
    await client.send(b"1;a=b\r\nx\r\n")
    backend = await scene.backend.accept()
    await backend.until(b"\r\n\r\n")
    assert await backend.until(b"x\r\n") == b"1\r\nx\r\n"
    await client.send((b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 20)
    response = await client.response()
    assert (response.status, response.get("connection")) == (400, "close")
    assert await backend.gone()


async def test_a_flood_of_interim_responses_is_cut(scene: Scene) -> None:
    client, backend = await scene.meet()
    await backend.send(head("HTTP/1.1 103 Early Hints", "Link: </a>") * 1000 + OK)
    response = await client.response()
    assert response.status == 502
    assert len(response.interim) < 100
    assert await backend.gone()
