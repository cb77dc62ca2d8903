"""What is asked of every proxy: the cases and the bodies behind their paths."""

from collections.abc import Iterable
from dataclasses import dataclass

FEW = {"User-Agent": "benchmark"}  # with Host, two

# What a browser sends on a link that it follows; with Host, twelve.
BROWSER = {
    "Connection": "keep-alive",
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Referer": "http://shop.example.com/catalogue?page=2",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Cookie": "session=0f8b2c9d4e6a4b1f9c3d5e7a8b0c1d2e; theme=dark; consent=yes",
}

BODIES = {
    "/": b"Hello, World!\n",
    "/10k": b"0123456789abcdef" * 640,
    "/1m": b"0123456789abcdef" * 65536,
}

# Answers with what the backend saw of these, one per line: whether a proxy does the whole job.
SEEN_PATH = "/seen"
SEEN_HEADERS = ("X-Request-ID", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host")


@dataclass(frozen=True)
class Case:
    """One kind of request, repeated."""

    name: str
    title: str
    path: str
    headers: dict[str, str]
    tls: bool = False  # whether clients speak TLS with the proxy

    @property
    def body(self) -> bytes:
        return BODIES[self.path]


CASES = {
    case.name: case
    for case in (
        Case("few", "2 request headers, 14 B", "/", FEW),
        Case("many", "12 request headers, 14 B", "/", BROWSER),
        Case("10k", "2 request headers, 10 KiB", "/10k", FEW),
        Case("1m", "2 request headers, 1 MiB", "/1m", FEW),
        Case("tls", "2 request headers, 14 B, TLS", "/", FEW, tls=True),
        Case("tls-1m", "2 request headers, 1 MiB, TLS", "/1m", FEW, tls=True),
    )
}

PLAIN = [name for name, case in CASES.items() if not case.tls]  # what runs unless other cases are named


def chosen(names: Iterable[str]) -> list[Case]:
    """The cases of these names, in the order of the table above."""
    wanted = set(names)
    return [case for name, case in CASES.items() if name in wanted]
