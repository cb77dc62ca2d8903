"""Paths as backends may read them.

We match a path as it came. A backend may decode it, resolve its dots, take several slashes for one, or leave
out what is behind a semicolon (RFC 3986, sections 3.3 and 6.2.2): then `/%61dmin`, `//admin`, `/x/../admin`
and `/x/..;/admin` are all `/admin` to it. Nobody in front can know which of this it does.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_DEEPEST = 256  # segments of a path that is worth so much work
_odd = re.compile(rb"[%;\\]|//|/\.").search
_encoded = re.compile(rb"%([0-9A-Fa-f]{2})")
_parameters = re.compile(rb";[^/]*")
_KEPT = b"%?"  # never decoded: the one would have to be decoded twice, the other is no end of the path
_SLASHES = b"/\\"  # decoded by some, and by others not


def is_odd(target: bytes) -> bool:
    """Whether a target's path may be read as another one."""
    return _odd(target.partition(b"?")[0]) is not None


def readings(target: bytes) -> Collection[bytes] | None:
    """What a backend may make of a target's path; None where it is too deep to tell."""
    path = target.partition(b"?")[0]
    if path.count(b"/") + path.lower().count(b"%2f") + path.lower().count(b"%5c") > _DEEPEST:
        return None
    found: set[bytes] = set()
    for bare in {path, _parameters.sub(b"", path)}:
        for decoded in {bare, _decoded(bare, _KEPT + _SLASHES), _decoded(bare, _KEPT).replace(b"\\", b"/")}:
            found.add(_resolved(decoded.split(b"/")))
            found.add(
                _resolved([segment for segment in decoded.split(b"/") if segment], decoded[-1:] == b"/")
            )
    return found


def _decoded(path: bytes, kept: bytes) -> bytes:
    def decode(match: re.Match[bytes]) -> bytes:
        octet = bytes([int(match[1], 16)])
        return match[0] if octet in kept else octet

    return _encoded.sub(decode, path)


def _resolved(segments: list[bytes], ends_with_slash: bool = False) -> bytes:
    """Without the segments `.` and `..` (RFC 3986, section 5.2.4)."""
    if segments[:1] == [b""]:
        segments = segments[1:]
    found: list[bytes] = []
    for segment in segments:
        if segment == b"..":
            if found:
                found.pop()
        elif segment != b".":
            found.append(segment)
    end = b"/" if found and (ends_with_slash or segments[-1] in (b".", b"..")) else b""
    return b"/" + b"/".join(found) + end
