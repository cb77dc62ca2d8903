"""What every kind of source has in common in the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lb.config.fields import duration, one_of
from lb.config.section import Section
from lb.config.shapes import OrOff

_ON_EMPTY = (
    "What an empty answer after a full one does: `keep` stays with the last backends, "
    "`accept` leaves the pool without them."
)
_OnEmpty = Annotated[Literal["keep", "accept"], one_of("keep", "accept")]


class SourceSection(Section):
    """What may be said of every kind of source."""

    on_empty: _OnEmpty = Field(default="keep", description=_ON_EMPTY)
    max_stale: Annotated[float | None, duration(more_than=0), OrOff("a duration")] = Field(
        default=None,
        description="So long the last backends are kept where no good answer comes. With `off`, for ever.",
    )

    @property
    def about(self) -> str:
        """What it asks for, in a word for the log and the admin API."""
        raise NotImplementedError


class TrustedSection(SourceSection):
    """The same of a source that knows when a service has no instances, and is believed."""

    on_empty: _OnEmpty = Field(default="accept", description=_ON_EMPTY)
