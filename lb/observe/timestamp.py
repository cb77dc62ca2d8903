"""Moments as people and programs read them."""

from datetime import UTC, datetime


def iso_time(seconds: float) -> str:
    """Unix time as ISO 8601 in UTC with milliseconds: `2026-01-31T12:00:00.250Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
