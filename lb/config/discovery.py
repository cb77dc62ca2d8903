"""Sources: where a pool's backends come from at run time.

For another kind of source: a section here or in a file of its own, a line in `DiscoverySource`, and a line in
`lb/sources.py`, which makes a source of the section.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_serializer

from lb.config.fields import OrOff, OrShort, duration, one_of, parsed
from lb.config.section import AT_KEY, Found, Section
from lb.config.written import nearest, quoted


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


def _file_path(written: str) -> str:
    if not written or not written.isprintable() or written.endswith("/"):
        raise ValueError(f"must be the path of a file, not {quoted(written)}")
    return written


_backends_path = parsed(_file_path, "a path", "backends.yaml", pattern="[^/]$")


class FileSection(SourceSection):
    """A file with a list of backends, looked at for changes."""

    required: ClassVar = {"path": "a path, as in path: backends.yaml"}

    path: Annotated[str, _backends_path] = Field(
        description="YAML or JSON: a list of what may stand under `backends`. Relative to the configuration "
        "file."
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        path, directory = data.get("path"), context.get("directory")
        if isinstance(path, str) and path and isinstance(directory, FilePath):
            data["path"] = type(path)(directory / path)
        yield from ()

    @property
    def about(self) -> str:
        return self.path


class DiscoverySource(Section):
    """One source: a mapping of its kind to what it has to know."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    file: Annotated[FileSection | None, OrShort("path", _backends_path.json_schema)] = Field(
        default=None, description="A file with a list of backends, looked at for changes."
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        kinds = cls.written_keys()
        misspelt = any(key not in kinds and nearest(str(key), kinds) for key in data)
        if len(data) != 1 and not misspelt:
            yield (AT_KEY,), f"needs exactly one of {', '.join(kinds)}"

    @property
    def kind(self) -> str:
        """Which one it is."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def section(self) -> SourceSection:
        """What is said of it."""
        found = getattr(self, self.kind)
        assert isinstance(found, SourceSection)
        return found

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {self.kind: self.section}
