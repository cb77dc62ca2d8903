"""Targets for parsers that come with features of their own: each is there as soon as its module is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from random import Random
from types import ModuleType
from zlib import crc32


def further_targets() -> dict[str, Callable[[bytes], None]]:
    """By their names."""
    found: dict[str, Callable[[bytes], None]] = {}
    for target, module, has in (
        (proxy_protocol, "lb.wire.proxy_protocol", "read_header"),
        (forwarded_field, "lb.wire.forwarded", "believed"),
        (htpasswd, "lb.core.passwords", "read_htpasswd"),
    ):
        if _module(module) is not None and hasattr(_module(module), has):
            found[target.__name__] = target
    return found


def _module(name: str) -> ModuleType | None:
    return import_module(name) if find_spec(name) is not None else None


def proxy_protocol(data: bytes) -> None:
    """A PROXY header: a client, or none, or Malformed; and never another one when it comes in pieces."""
    module = import_module("lb.wire.proxy_protocol")
    read, malformed = module.read_header, module.Malformed

    def outcome(size: int) -> object:
        try:
            return read(data[:size])
        except malformed:
            return "malformed"

    sizes: Sequence[int] = range(len(data) + 1)
    if len(data) > 64:
        sizes = sorted({*Random(crc32(data)).sample(sizes, 32), len(data)})
    whole = outcome(len(data))
    first = next((found for size in sizes if (found := outcome(size)) is not None), None)
    if whole is None:
        assert first is None, first
    elif whole != "malformed":
        assert first == whole, (first, whole)
        assert 0 < whole.size <= len(data)  # type: ignore[attr-defined]
        if whole.source not in ("", "unix:"):  # type: ignore[attr-defined]
            ip_address(whole.source)  # type: ignore[attr-defined]
        assert outcome(len(data)) == whole
        longer = read(data + b"GET / HTTP/1.1\r\n")
        assert longer == whole, "what stands behind a header is no part of it"


def forwarded_field(data: bytes) -> None:
    """Forwarded: nothing to the left of a stranger is believed, and what we write is read as it was meant."""
    module, identity = import_module("lb.wire.forwarded"), import_module("lb.core.identity")
    proxies = identity.Proxies([ip_network("10.0.0.0/8")])
    module.believed("10.0.0.1", data, proxies)
    stranger = module.believed("10.0.0.1", data + b', for=192.0.2.7;host="a";proto=https', proxies)
    assert (stranger.client, stranger.proto) == ("192.0.2.7", b"https")
    host = data.partition(b"\r")[0][:40]
    written = module.element("2001:db8::1", host, b"https")
    parsed = module.parse_element(written)
    assert parsed is not None, written
    assert parsed.get(b"for") == b"[2001:db8::1]"
    assert parsed[b"proto"] == b"https"
    if b"host" in parsed:
        assert parsed[b"host"] == host


def htpasswd(data: bytes) -> None:
    """A file of users: these and their hashes, or problems with their lines."""
    module = import_module("lb.core.passwords")
    text = data.decode("utf-8", "replace")
    users, problems = module.read_htpasswd(text)
    assert all(1 <= line <= text.count("\n") + 1 and words for line, words in problems)
    for name, written in users.items():
        assert name
        try:
            module.verifier(written)
        except ValueError:
            assert problems
