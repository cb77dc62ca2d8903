"""Header fields that a route adds, sets and removes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from lb.core.template import Template

Values = Callable[[], Mapping[str, bytes]]


_PLAIN = bytes([octet if chr(octet).isalnum() and octet < 128 else 0x2D for octet in range(256)])


def _plain(name: bytes) -> bytes:
    """A name as whoever makes a variable of it may read it: HTTP_X_A is of X-A, x_a and X.A (RFC 3875,
    section 4.1.18)."""
    return name.lower().translate(_PLAIN)


class Edits:
    """Changes of the field lines of a head, in this order: `remove`, `set`, `add`.

    Names are taken without regard to case, and to what stands between their letters and digits: who sets
    `X-User` means that no client can say `X_User` to a backend that takes the one for the other. A value may
    have placeholders; only then somebody is asked for what they stand for.
    """

    __slots__ = ("_filled", "_gone", "_lines")

    def __init__(
        self,
        set_: Mapping[str, str] | None = None,
        add: Mapping[str, Sequence[str]] | None = None,
        remove: Iterable[str] = (),
    ) -> None:
        self._gone = frozenset([_plain(name.encode()) for name in (*remove, *(set_ or ()))])
        self._lines: list[bytes] = []  # that are always the same
        self._filled: list[tuple[bytes, Template]] = []
        for name, value in (set_ or {}).items():
            self._put(name, value)
        for name, values in (add or {}).items():
            for value in values:
                self._put(name, value)

    def _put(self, name: str, value: str) -> None:
        template = Template(value)
        start, constant = name.encode() + b": ", template.constant
        if constant is None:
            self._filled.append((start, template))
        else:
            self._lines.append(start + constant)

    def apply(self, lines: list[bytes], values: Values) -> None:
        """Changes the lines of a head, whose first one is no field."""
        if self._gone:
            lines[1:] = self.passing(lines[1:])
        lines += self._lines
        if self._filled:
            found = values()
            lines += [start + template.render(found) for start, template in self._filled]

    def passing(self, lines: Sequence[bytes]) -> list[bytes]:
        """The field lines, of a head or a trailer section, less those that are set or removed."""
        gone = self._gone
        return [line for line in lines if _plain(line.partition(b":")[0]) not in gone]


def set_host(lines: list[bytes], host: bytes) -> None:
    """Another Host in a request's head, as its first field (RFC 9110, section 7.2)."""
    lines[1:] = [b"Host: " + host, *[line for line in lines[1:] if line[:5].lower() != b"host:"]]
