"""What every kind of source has in common in the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lb.config.fields import OrOff, duration, one_of
from lb.config.section import Section


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
