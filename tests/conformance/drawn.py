"""Requests drawn at random: right ones, and ones that are broken where parsers stumble."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st


def bounded(examples: int) -> settings:
    """So many examples, the same ones each time: a balancer on sockets takes its time for each."""
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.function_scoped_fixture,
        ],
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        derandomize=True,
        database=None,
    )


token = st.text("!#$%&'*+-.^_`|~019azAZ", min_size=1, max_size=12)
value = st.text("".join(map(chr, [9, *range(32, 127), *range(128, 256)])), max_size=30)
path = st.text("/abc.%20?&=;~!$'()*+,:@-_0123456789", max_size=30).map(lambda rest: "/" + rest)
TELLING = """
Connection: close
Connection: keep-alive, X-A
Connection: host, content-length
X-A: 1
TE: trailers
Expect: 100-continue
Upgrade: websocket
Content-Length: 5
Content-Length: 0
Content-Length: +5
Transfer-Encoding: chunked
Transfer-Encoding : chunked
Transfer-Encoding: gzip, chunked
Transfer-Encoding: identity
Host: b.example
Via: 1.0 x
X-Forwarded-For: 1.2.3.4
X-Request-ID: abcdefghij
Trailer: X-A
X_Forwarded_For: 1
content_length: 5
Keep-Alive: 5
Proxy-Connection: close
Forwarded: for=x
"""
field = st.one_of(st.tuples(token, value).map(": ".join), st.sampled_from(TELLING.strip().splitlines()))
chunk = st.binary(max_size=40).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data) if data else b"")


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is right, or would be, but for the fields that it happens to have."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "OPTIONS", "DELETE", "PROPFIND"]))
    target = draw(
        st.one_of(path, st.sampled_from(["*", "http://b.example/x", "http://b.example", "//x/..;"]))
    )
    version = draw(st.sampled_from(["1.1"] * 9 + ["1.0"]))
    lines = ["Host: a.example", *draw(st.lists(field, max_size=5))]
    body = b""
    match draw(st.sampled_from(["none", "none", "length", "chunked"])):
        case "length":
            body = draw(st.binary(max_size=60))
            lines.append(f"Content-Length: {len(body)}")
        case "chunked":
            trailers = "".join(f"{line}\r\n" for line in draw(st.lists(field, max_size=2)))
            body = (
                b"".join(draw(st.lists(chunk, max_size=3))) + b"0\r\n" + trailers.encode("latin-1") + b"\r\n"
            )
            lines.append("Transfer-Encoding: chunked")
    lines = draw(st.permutations(lines))
    start = f"{method} {target} HTTP/{version}"
    return "".join(f"{line}\r\n" for line in [start, *lines, ""]).encode("latin-1") + body


ODD = ["", "\r", "\n", "\r\n", "\r\n ", "\n\n", "\r\r\n", "\r\n\r\n", "\0", " ", "\t", "\x0b", "\x0c", "\x85"]
ODD += ["\xa0", ":", ",", ";", "0", "-", "+", "_", "\xc2\xb2", "\xe2\x84\xaa"]


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """Some places are overwritten, left out, doubled or broken up by what parsers stumble over."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 4)))
        odd = st.sampled_from([each.encode("latin-1") for each in ODD])
        data = data[:at] + draw(st.one_of(odd, st.just(data[at:until] * 2))) + data[until:]
    return data
