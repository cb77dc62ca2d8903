"""Answers that need no backend: fixed ones, redirects, and bodies for our own errors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, ClassVar

from pydantic import Field

from lb.config.fields import one_of_numbers, parsed, text_of, whole
from lb.config.section import AT_KEY, Found, Section, pairs_of, readable
from lb.config.shapes import OrShort, Written
from lb.config.values import format_size, is_visible, parse_statuses
from lb.config.written import quoted

_LONGEST_BODY = 2**16  # bytes: as long as it isn't read, each answer holds all of it
_LONGEST_FILE = 2**20


@dataclass(frozen=True, slots=True)
class FileText:
    """A file that was read when the configuration was. Another content is another configuration."""

    path: str
    content: bytes

    def __str__(self) -> str:
        return self.path


def file_text(example: str, longest: int = _LONGEST_FILE) -> Written:
    """The path of a file, which is read at once."""
    what = "the path of a file"

    def read(value: object) -> FileText | None:
        if value is None or isinstance(value, FileText):
            return value
        path = text_of(value, what)
        if not path or "\0" in path:
            raise ValueError(f"must be {what}, not {quoted(path)}")
        try:
            with open(path, "rb") as stream:
                content = stream.read(longest + 1)
        except OSError as error:
            words = os.strerror(error.errno).lower() if error.errno else str(error)
            raise ValueError(f"can't read {path}: {words}") from None
        if len(content) > longest:
            raise ValueError(f"can't be {path}, which is larger than {format_size(longest)}")
        return FileText(path, content)

    return Written(read, {"type": "string", "title": what, "examples": [example]}, str)


_word = "[A-Za-z0-9_!#$&^.+-]+"
_MEDIA_TYPE = rf'{_word}/{_word}( *; *{_word}=("[ !#-\[\]-~]*"|{_word}))*'


def _content_type(written: str) -> str:
    if not re.fullmatch(_MEDIA_TYPE, written):
        raise ValueError(f"must be a media type such as text/html; charset=utf-8, not {quoted(written)}")
    return written


_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".htm": "text/html; charset=utf-8",
    ".json": "application/json",
    ".xml": "application/xml",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".png": "image/png",
}
_media_type = parsed(_content_type, "a media type", "text/html; charset=utf-8", pattern=f"^{_MEDIA_TYPE}$")


def _short(written: str) -> str:
    if len(written.encode()) > _LONGEST_BODY:
        raise ValueError(f"can't be longer than {format_size(_LONGEST_BODY)}")
    return written


_body = parsed(_short, "text", "Sorry.", types=(NoneType,), type=["string", "number", "boolean"])
_OF_BODY = "As the file's name ends, or `text/plain; charset=utf-8`, if left out."


class _Content(Section):
    """A body: as text, or from a file."""

    body: Annotated[str | None, _body] = Field(default=None, description="The body itself.")
    file: Annotated[FileText | None, file_text("sorry.html", _LONGEST_BODY)] = Field(
        default=None,
        description="Or a file that holds it, of at most 64 KiB. It is read at the start and at a reload.",
    )
    content_type: Annotated[str, _media_type] = Field(default="", description=f"What it is. {_OF_BODY}")

    @property
    def content(self) -> bytes:
        return self.file.content if self.file is not None else (self.body or "").encode()

    @property
    def media_type(self) -> str:
        ending = os.path.splitext(self.file.path)[1].lower() if self.file is not None else ""
        return self.content_type or _KINDS.get(ending, "text/plain; charset=utf-8")

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if data.get("body") is not None and data.get("file") is not None:
            yield ("file", AT_KEY), "stands beside body, but an answer has only one of the two"


class Respond(_Content):
    """A fixed answer. Further header fields are set by the route's `headers.response`."""

    status: Annotated[int, whole(200, 599)] = Field(default=200, description="Its status.")

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        yield from super().examine(data, context)
        status = readable(whole(200, 599).read, data.get("status", 200))
        for key in ("body", "file"):
            if status in (204, 205, 304) and data.get(key) is not None:
                yield (key, AT_KEY), f"can't be here, since an answer with the status {status} has no body"


class ErrorPage(_Content):
    """A body in place of our own. In it, `{request_id}`, `{status}`, `{failure}` and `{message}` are filled
    in."""

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        yield from super().examine(data, context)
        if data.get("body") is None and data.get("file") is None:
            yield (AT_KEY,), "needs a body, as in body: TEXT, or a file, as in file: PATH"


_authority = r"(?:[A-Za-z0-9.-]|\{host\})+|\[[0-9A-Fa-f:.]+\]"
_absolute = re.compile(
    rf"(?:https?|\{{scheme\}})://(?:{_authority})(?::[0-9]{{1,5}})?(?:(?:[/?#]|\{{path\}}|\{{query\}}).*)?"
)


def _location(written: str) -> str:
    from lb.core.template import Template  # here, so that importing the models stays quick

    if not is_visible(written):
        raise ValueError(f"must be visible ASCII, as it stands in the header, not {quoted(written)}")
    template = Template(written)
    if not (_absolute.fullmatch(written) or template.start[:1] == b"/" or written.startswith("{path}")):
        raise ValueError(
            "must be a URL or a path, as in https://{host}{path}{query} or /new{path}, "
            f"not {quoted(written)}"
        )
    return written


_REDIRECTS = (301, 302, 303, 307, 308)
_to = parsed(_location, "a URL with placeholders", "https://{host}{path}{query}")


class RedirectTo(Section):
    """Sends the client elsewhere."""

    required: ClassVar = {"to": "where to, as in to: https://{host}{path}{query}"}

    to: Annotated[str, _to] = Field(
        description="Where to: a URL, or a path at the same host. `{scheme}`, `{host}` (without port), "
        "`{path}`, `{query}` (with its `?`, or nothing), `{client}`, `{method}`, `{request_id}` and `{user}` "
        "are filled in."
    )
    status: Annotated[int, one_of_numbers(*_REDIRECTS)] = Field(
        default=302,
        description="307 and 308 keep the method and the body; 301 and 308 are remembered by browsers.",
    )


Redirect = Annotated[RedirectTo, OrShort("to", _to.json_schema)]


def _statuses(written: str) -> str:
    found = parse_statuses(written)
    if any(low < 400 for low, _ in found.ranges):
        raise ValueError(f"must be statuses from 400 to 599, not {quoted(written)}")
    return str(found)


_ONE = "[45][0-9]{2}(-[45][0-9]{2})?"
_page_key = parsed(_statuses, "statuses such as 502 or 500-599", "502", pattern=f"^{_ONE}( *, *{_ONE})*$")
ErrorPages = Mapping[Annotated[str, _page_key], ErrorPage]


def pages_by_status(pages: ErrorPages) -> dict[int, ErrorPage]:
    return {status: page for key, page in pages.items() for status in parse_statuses(key).members}


def examine_pages(written: Any) -> Iterator[Found]:
    """No status may have two."""
    seen: dict[int, str] = {}
    for key, _ in pairs_of(written):
        found = readable(parse_statuses, key)
        twice = [] if found is None else sorted(status for status in found.members if status in seen)
        if twice:
            yield ("errors", key, AT_KEY), f"has {twice[0]}, which {quoted(seen[twice[0]])} has already"
        elif found is not None:
            seen.update(dict.fromkeys(found.members, key))
