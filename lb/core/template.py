"""Text with placeholders: `https://{host}{path}`. What is filled in comes from the request."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

NAMES = ("client", "host", "method", "path", "query", "request_id", "scheme", "user")
"""What can be filled in.

`client` is the address of who asked, `host` the Host without its port, `path` the path as it came, `query`
the query with its `?` in front or nothing, `scheme` http or https, `user` who has logged in.
"""

_part = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Template:
    """A text in which `{name}` is filled in; `{{` and `}}` are braces.

    Raises ValueError, in words for people, for a name that is none of `names` and for a brace alone.
    """

    __slots__ = ("_pieces", "names")

    def __init__(self, text: str, names: Collection[str] = NAMES) -> None:
        pieces: list[str | bytes] = [b""]  # bytes as they are, names as text
        end = 0
        for match in _part.finditer(text):
            pieces.append(text[end : match.start()].encode())
            end = match.end()
            if match[0] in ("{{", "}}"):
                pieces.append(match[0][:1].encode())
            elif match[1] is None:
                raise ValueError(f"has a {match[0]} alone: a brace is written {match[0] * 2}")
            elif match[1] not in names:
                raise ValueError(
                    f"knows no {match[0]}: there are {', '.join(f'{{{each}}}' for each in names)}"
                )
            else:
                pieces.append(match[1])
        pieces.append(text[end:].encode())
        self._pieces = _joined(pieces)
        self.names = frozenset([each for each in self._pieces if isinstance(each, str)])

    @property
    def constant(self) -> bytes | None:
        """The text itself, where nothing has to be filled in."""
        return None if self.names else b"".join(each for each in self._pieces if isinstance(each, bytes))

    @property
    def start(self) -> bytes:
        """What it begins with, whatever is filled in."""
        first = self._pieces[0] if self._pieces else b""
        return first if isinstance(first, bytes) else b""

    def render(self, values: Mapping[str, bytes]) -> bytes:
        return b"".join([values[each] if isinstance(each, str) else each for each in self._pieces])


def _joined(pieces: list[str | bytes]) -> tuple[str | bytes, ...]:
    """Neighbouring bytes as one, and no empty ones."""
    found: list[str | bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += piece
        elif piece:
            found.append(piece)
    return tuple(found)
