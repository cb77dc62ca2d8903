"""What passes the balancer is understood alike by everyone: h11, aiohttp, Go, and our own strict parser.

Smuggling lives on someone who reads a message in another way than the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conformance import strict
from tests.conformance.drawn import bounded, field, mutations, requests, token, value
from tests.conformance.judges import FRAMING, H11, Aiohttp, Go, Meaning, Rejected, values
from tests.conformance.recorder import RecordingBackend, ask
from tests.e2e.scene import ONE_BACKEND, Stage, set_up
from tests.tools import need

EXAMPLES = int(os.environ.get("LB_EXAMPLES", "300"))
OURS = {"via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id", "date"}


@dataclass
class Court:
    """A balancer with both of its ends, and those who judge what passes it."""

    stage: Stage
    backend: RecordingBackend
    h11: H11
    aiohttp: Aiohttp
    go: Go
    heard: int = 0

    def on_request(self, raw: bytes) -> Meaning:
        """What all of them understood."""
        request, size = strict.parse_request(raw)
        assert (request.violations, size) == ([], len(raw)), raw
        ours = Meaning(
            (request.method, request.target),
            request.all("host")[0],
            without_framing(request.headers),
            request.body.decode("latin-1"),
            trailers(request.trailers),
        )
        for judge in (self.h11, self.aiohttp, self.go):
            self._agrees(type(judge).__name__, judge.request(raw), ours, raw)
        self.heard += 1
        return ours

    def on_response(self, raw: bytes, method: str) -> Meaning | None:
        """What all of them understood; None where it is cut, as all of them see."""
        response = strict.parse_response(raw, method == "HEAD", "fin")
        assert not response.violations, raw
        ours = Meaning(
            (str(response.status),),
            "",
            without_framing(response.headers),
            response.body.decode("latin-1"),
            trailers(response.trailers),
        )
        for judge in (self.h11, self.aiohttp, self.go):
            try:
                found = judge.response(raw, method)
            except Rejected:
                assert not response.complete, (type(judge).__name__, raw)
            else:
                assert response.complete, (type(judge).__name__, raw)
                self._agrees(type(judge).__name__, found, ours, raw)
        self.heard += response.complete
        return ours if response.complete else None

    def _agrees(self, name: str, found: Meaning, ours: Meaning, raw: bytes) -> None:
        if found.trailers is None:
            found.trailers = ours.trailers
        assert found == ours, (name, raw)


def without_framing(headers: strict.Fields) -> dict[str, list[str]]:
    return {name: each for name, each in encoded(headers).items() if name not in FRAMING}


def trailers(headers: strict.Fields) -> dict[str, list[str]]:
    return encoded(headers)


def encoded(headers: strict.Fields) -> dict[str, list[str]]:
    return values((name.encode("latin-1"), each) for name, each in headers)


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Court]:
    go = Go(need("go", "golang-go"), tmp_path_factory.mktemp("judge"))
    aiohttp = Aiohttp()
    with set_up(tmp_path_factory.mktemp("balancer"), ONE_BACKEND) as stage:
        backend = RecordingBackend(stage.sockets["a"])
        backend.start()
        try:
            yield Court(stage, backend, H11(), aiohttp, go)
        finally:
            backend.stop()
            aiohttp.close()
            go.close()


@bounded(EXAMPLES)
@given(data=requests().flatmap(mutations))
def test_all_judges_understand_the_same_request(court: Court, data: bytes) -> None:
    """Of what was right, of what was nearly right and passed all the same."""
    court.backend.raw.clear()
    ask(court.stage.balancer, data)
    for raw in list(court.backend.raw):
        court.on_request(raw)


# Names that nobody gives a meaning to.
names = token.map("X-".__add__)
lines = st.lists(st.tuples(names, value), max_size=4)


def folded(headers: list[tuple[str, str]]) -> dict[str, list[str]]:
    return values((name.encode(), each.encode("latin-1")) for name, each in headers)


@bounded(EXAMPLES)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"]),
    target=st.text("/abc.;=:@&?-_~!$'()*+,09", max_size=20).map("/".__add__),
    host=st.sampled_from(["a.example", "A.example:80", "[::1]:8080", "127.0.0.1", "x_y~z.example."]),
    absolute=st.booleans(),
    headers=lines,
    pieces=st.lists(st.binary(min_size=1, max_size=50), max_size=3),
    trailing=lines,
    form=st.sampled_from(["none", "length", "chunked"]),
)
def test_all_judges_understand_what_was_meant(
    court: Court,
    method: str,
    target: str,
    host: str,
    absolute: bool,
    headers: list[tuple[str, str]],
    pieces: list[bytes],
    trailing: list[tuple[str, str]],
    form: str,
) -> None:
    if any(
        name.lower().replace("_", "-").startswith(("x-forwarded", "x-real", "x-request"))
        for name, _ in headers
    ):
        return
    said = [f"{method} {f'http://{host}' if absolute else ''}{target} HTTP/1.1"]
    said += [f"Host: {'other.example' if absolute else host}", *map(": ".join, headers)]
    body = b"".join(pieces) if form != "none" else b""
    coded = body
    if form == "length":
        said.append(f"Content-Length: {len(body)}")
    elif form == "chunked":
        said.append("Transfer-Encoding: chunked")
        ending = "".join(f"{name}: {each}\r\n" for name, each in trailing).encode("latin-1")
        coded = (
            b"".join(b"%x;a=b\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n" + ending + b"\r\n"
        )
    court.backend.raw.clear()
    answer = ask(court.stage.balancer, "\r\n".join([*said, "", ""]).encode("latin-1") + coded)
    assert b"HTTP/1.1 200 OK" in answer, answer
    [raw] = court.backend.raw
    meant = Meaning(
        (method, target),
        host,
        folded(headers),
        body.decode("latin-1"),
        folded(trailing if form == "chunked" else []),
    )
    found = court.on_request(raw)
    found.fields = {name: each for name, each in found.fields.items() if name not in OURS}
    assert found == meant


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """A response in one of the forms that there are."""
    status = draw(
        st.sampled_from(["200 OK", "200 ", "204 No Content", "304 Not Modified", "404 N\xe4", "503 x"])
    )
    version = draw(st.sampled_from(["1.1"] * 4 + ["1.0"]))
    said = draw(st.lists(field.filter(lambda line: not line.startswith(("Host", "Upgrade"))), max_size=4))
    body = draw(st.binary(max_size=60))
    form = draw(st.sampled_from(["length", "chunked", "until close"]))
    if form == "length":
        said.append(f"Content-Length: {len(body) + draw(st.sampled_from([0, 0, 0, 1]))}")
    elif form == "chunked":
        said.append("Transfer-Encoding: chunked")
        last = "".join(f"{line}\r\n" for line in draw(st.lists(field, max_size=2))).encode("latin-1")
        body = (
            b"".join(draw(st.lists(st.binary(max_size=20).map(_chunk), max_size=3)))
            + b"0\r\n"
            + last
            + b"\r\n"
        )
    interim = draw(st.sampled_from(["", "", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]))
    said = draw(st.permutations(said))
    return (interim + "\r\n".join([f"HTTP/{version} {status}", *said, "", ""])).encode("latin-1") + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


@bounded(EXAMPLES)
@given(reply=responses().flatmap(mutations), method=st.sampled_from(["GET", "GET", "HEAD"]))
def test_all_judges_understand_the_same_response(court: Court, reply: bytes, method: str) -> None:
    court.backend.reply = reply
    try:
        said = f"{method} / HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nConnection: close\r\n\r\n"
        answer = ask(court.stage.balancer, said.encode(), half_close=False)
    finally:
        court.backend.reply = b""
    if answer:
        court.on_response(answer, method)


def test_most_of_it_was_heard(court: Court) -> None:
    """Else the tests above would say nothing."""
    assert court.heard > EXAMPLES * 3 // 2
