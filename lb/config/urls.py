"""URLs of other services, which we ask."""

from __future__ import annotations

from urllib.parse import urlsplit

from lb.config.fields import parsed
from lb.config.shapes import Written
from lb.config.values import is_visible
from lb.config.written import quoted


def service_url(example: str, with_path: bool) -> Written:
    """Where a service is: http or https, and the path that it is behind, if it may have one."""

    def parse(written: str) -> str:
        try:
            parts = urlsplit(written)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"must be a URL, not {quoted(written)}: {error}") from None
        good = parts.scheme in ("http", "https") and parts.hostname and port != 0 and is_visible(written)
        if not good or not (with_path or parts.path in ("", "/")):
            raise ValueError(f"must be a URL such as {example}, not {quoted(written)}")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must be a URL without a user, ? and #")
        return written.rstrip("/")

    return parsed(parse, "a URL", example, pattern="^https?://")
