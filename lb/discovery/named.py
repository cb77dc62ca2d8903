"""What other systems call an instance, made into what may stand in a log, a metric, a header and a URL."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

_OTHER = re.compile(r"[^A-Za-z0-9._:\[\]-]")
_LONGEST_ID = 128
_LONGEST_HOST = 253
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?", re.ASCII)


def backend_id(text: str) -> str:
    """An ID as the configuration would take it: what can't stand in one becomes `_`."""
    return _OTHER.sub("_", text[:_LONGEST_ID])


def host(text: str) -> str | None:
    """A host name in lower case, or an IP address without brackets; None for anything else."""
    return _host(text) if len(text) <= _LONGEST_HOST else None


@lru_cache(8192)  # the same thousands come again with each answer of a source
def _host(text: str) -> str | None:
    try:
        return str(ip_address(text))
    except ValueError:
        name = text.lower()
        return name if _HOST.fullmatch(name) else None
