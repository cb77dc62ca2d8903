"""How many connections the admin server takes. Here, for those who must not wait until aiohttp is loaded."""

from __future__ import annotations

MOST = 64
MOST_REGISTERING = 512
"""Where instances register, and wait for changes."""


def room(registry: bool) -> int:
    """How many there may be at a time."""
    return MOST_REGISTERING if registry else MOST
