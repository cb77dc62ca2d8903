"""What every kind of source has in common in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lb.config.fields import OrOff, duration, one_of
from lb.config.section import Section


def beside(data: dict[str, Any], key: str, context: Mapping[str, Any]) -> None:
    """Makes a path relative to the configuration file, where it isn't absolute."""
    path, directory = data.get(key), context.get("directory")
    if isinstance(path, str) and path and isinstance(directory, Path):
        data[key] = type(path)(directory / path)


class SourceSection(Section):
    """What may be said of every kind of source."""

    on_empty: Annotated[Literal["keep", "accept"], one_of("keep", "accept")] = Field(
        default="keep",
        description="What an empty answer after a full one does: `keep` stays with the last backends, "
        "`accept` leaves the pool without them.",
    )
    max_stale: Annotated[float | None, duration(more_than=0), OrOff("a duration")] = Field(
        default=None,
        description="So long the last backends are kept where no good answer comes. With `off`, for ever.",
    )

    @property
    def about(self) -> str:
        """What it asks for, in a word for the log and the admin API."""
        raise NotImplementedError
