"""Answers that need no backend: fixed ones, redirects, and bodies for our own errors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lb.core.template import Template

PAGE_NAMES = ("request_id", "status", "failure", "message")


class FixedAnswer:
    """Always the same."""

    __slots__ = ("body", "content_type", "status")

    def __init__(self, status: int, body: bytes = b"", content_type: str = "") -> None:
        self.status = status
        self.body = body
        self.content_type = content_type.encode()


_not_in_a_uri = re.compile(rb"[^!#$%&\'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]")


class Redirect:
    """Sends the client elsewhere: to `location`, a text with placeholders.

    What is filled in can't change the host that was meant. Where the text has none, the location stays a
    path: of slashes in front one is left, since `//elsewhere` would be a host (RFC 3986, section 4.2), and
    a backslash is written `%5C`, since browsers take it for a slash.
    """

    __slots__ = ("_absolute", "_template", "status")

    def __init__(self, location: str, status: int) -> None:
        self.status = status
        self._template = Template(location)
        self._absolute = location.startswith("{scheme}://") or bool(
            re.match(r"https?://", location, re.IGNORECASE)
        )

    @property
    def needs_host(self) -> bool:
        return "host" in self._template.names

    def location(self, values: Mapping[str, bytes]) -> bytes:
        """Where to, in characters that a URI may have (RFC 3986, section 2)."""
        found = _not_in_a_uri.sub(_escaped, self._template.render(values))
        return found if self._absolute else b"/" + found.lstrip(b"/")


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


_token = re.compile(rb"\{(" + "|".join(PAGE_NAMES).encode() + rb")\}")


class ErrorPage:
    """The body of an error that we make ourselves. `{request_id}`, `{status}`, `{failure}` and `{message}` in
    it are filled in; other braces stay as they are, so that styles and scripts do."""

    __slots__ = ("_pieces", "content_type")

    def __init__(self, body: bytes, content_type: str) -> None:
        self.content_type = content_type.encode()
        self._pieces = _token.split(body)  # what is between, and names, in turn

    def render(self, values: Mapping[str, bytes]) -> bytes:
        pieces = self._pieces
        return b"".join([values[each.decode()] if number % 2 else each for number, each in enumerate(pieces)])
