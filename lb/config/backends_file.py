"""A file of its own with backends: what may stand under `backends` in a pool, in YAML or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from lb.config.loader import read_text, validated
from lb.config.pools import Backend, backend_address, duplicates
from lb.config.section import Found, Section
from lb.config.shapes import OrShort


class BackendsFile(Section):
    """The file: a list of backends, or a mapping that has it under `backends`."""

    required: ClassVar = {"backends": "backends, as in backends: [127.0.0.1:9001]"}

    backends: tuple[Annotated[Backend, OrShort("address", backend_address.json_schema)], ...] = Field(
        description="The backends; an empty list is none."
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        for path, words in duplicates(data.get("backends")):
            yield ("backends", *path), words


class BackendsReader:
    """Reads a file again and again. Of thousands of backends few change: what was read before isn't again."""

    def __init__(self) -> None:
        self._known: dict[str, Backend] = {}  # by what stands in the file

    def read(self, path: str) -> tuple[Backend, ...]:
        """The backends. Raises ConfigError with every problem, each with its line and column."""
        text = read_text(path)
        found = self._of_json(text)
        if found is None:
            found = validated(BackendsFile, _tabs_as_spaces(text), path, None, "backends", "backends")
        return found.backends

    def _of_json(self, text: str) -> BackendsFile | None:
        """Of flawless JSON. It is YAML too, but thousands of backends are read ten times as quickly so.
        None where anything is wrong: who reads it as YAML then can say where."""
        if not text.lstrip().startswith(("[", "{")):
            return None
        try:
            value = json.loads(text, object_pairs_hook=_no_key_twice)
            whole = {"backends": value} if isinstance(value, list) else value
            written = list(map(repr, whole["backends"]))
            items = [self._known.get(key, item) for key, item in zip(written, whole["backends"], strict=True)]
            found = BackendsFile.model_validate({**whole, "backends": items})
        except (ValueError, TypeError, KeyError, ValidationError, RecursionError):
            return None
        self._known = dict(zip(written, found.backends, strict=True))
        return found


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _tabs_as_spaces(text: str) -> str:
    """JSON may be indented with tabs, and has none in a text; YAML may not. Columns stay as they are."""
    return text.replace("\t", " ") if text.lstrip().startswith(("[", "{")) else text
