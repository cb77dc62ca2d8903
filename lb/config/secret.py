"""Secrets: never in the configuration itself, but in a file or an environment variable that it names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from lb.config.fields import parsed
from lb.config.paths import file_path
from lb.config.section import AT_KEY, Found, Section
from lb.config.values import is_visible


def _variable(written: str) -> str:
    if not (written.isascii() and written.isidentifier()):
        # Not shown: it may be the secret itself.
        raise ValueError("must be the name of an environment variable: letters, digits and _")
    return written


class TokenSource(Section):
    """Where the token is to be read from: one of the two."""

    what: ClassVar = "the admin token"

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["file"]}, {"required": ["env"]}]})

    file: Annotated[str | None, parsed(file_path, "a path", "/run/secrets/token", types=(NoneType,))] = Field(
        default=None, description="A file that holds it."
    )
    env: Annotated[
        str | None,
        parsed(_variable, "the name of an environment variable", "LB_ADMIN_TOKEN", types=(NoneType,)),
    ] = Field(default=None, description="An environment variable that holds it.")

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if (data.get("file") is None) == (data.get("env") is None):
            yield (AT_KEY,), "needs one of the two: {file: PATH} or {env: NAME}"

    def read(self) -> str:
        """The token itself, without the line's end. Raises ValueError if there is none."""
        found, place = self._look_up()
        found = found.removesuffix("\n").removesuffix("\r")
        if not found:
            raise ValueError(f"{self.what} in {place} is empty")
        if not is_visible(found):
            raise ValueError(f"{self.what} in {place} has a space, a line break or what isn't ASCII in it")
        return found

    def _look_up(self) -> tuple[str, str]:
        if self.env is not None:
            if self.env not in os.environ:
                raise ValueError(f"the environment variable {self.env} for {self.what} isn't set")
            return os.environ[self.env], f"the environment variable {self.env}"
        try:
            with open(self.file or "", "rb") as stream:
                return stream.read(65536).decode("latin-1"), f"the file {self.file}"
        except OSError as error:
            raise ValueError(f"can't read {self.what} from {self.file}: {error.strerror}") from error


def no_secret(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(
            "must not stand in this file itself: put it into a file and write {file: PATH}, "
            "or into an environment variable and write {env: NAME}"
        )
    return value
