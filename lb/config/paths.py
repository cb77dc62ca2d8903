"""Paths of files in the configuration: read, and made relative to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lb.config.written import is_nothing, quoted


def file_path(written: str) -> str:
    """Text that can be the path of a file."""
    if not written or "\0" in written:
        raise ValueError(f"must be the path of a file, not {quoted(written)}")
    return written


def usable_path(value: object) -> str:
    """A path that can be looked at; empty where the field will complain itself."""
    return str(value) if isinstance(value, str) and not is_nothing(value) and "\0" not in value else ""


def from_the_file(data: dict[str, Any], context: Mapping[str, Any], *keys: str) -> None:
    """Makes these paths those that they are from the configuration's directory on."""
    directory = context.get("directory")
    for key in keys:
        path = data.get(key)
        if isinstance(directory, Path) and isinstance(path, str) and usable_path(path):
            data[key] = type(path)(directory / path)
