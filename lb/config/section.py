"""What every section of the configuration has in common.

pydantic stops at the fields of a section when it checks what they say together, and its words are for
programmers. A `Section` does both halves in any case, so that every problem is told at once, in plain words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PlainSerializer,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, ValidationError

from lb.config.written import did_you_mean, nearest, shown, suggestion

AT_KEY = "[key]"
"""The last step of a path that means the key and not its value (pydantic's own word for it)."""

HIDDEN = "***"
SECRET = PlainSerializer(lambda value: None if value is None else HIDDEN, when_used="json")
"""Belongs into the annotation of a field whose value is nobody's business: `Annotated[str, SECRET]`, alone or
within a list or a mapping. The admin API shows `***` in its place. The path of a file is no secret."""

Path = tuple[int | str, ...]
Found = tuple[Path, str]
"""A problem: its path from this section on, and the words."""

_T = TypeVar("_T")


class Section(BaseModel):
    """A mapping of the file as a frozen model. An unknown key is a problem."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    required: ClassVar[Mapping[str, str]] = {}
    """What to say where a key that has no default is missing."""

    @classmethod
    def written_keys(cls) -> tuple[str, ...]:
        """The keys of the section, as they are written."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def misspelt(cls, data: Mapping[str, Any]) -> bool:
        """Whether a key is there that is none, but near to one: what seems to be missing may be this."""
        known = cls.written_keys()
        return any(nearest(str(key), known) for key in data if key not in known)

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        """What is wrong with the section as a whole. May also fill in `data` what the file leaves out.

        The data is as it was written: a part may be of a wrong type, which its own field will tell.
        """
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _every_problem(
        cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        if isinstance(data, cls):
            return data
        if not isinstance(data, Mapping):
            raise ValueError(f"must be a mapping, not {shown(data)}{cls._missing_space(data)}")
        data = dict(data)
        found = list(cls.examine(data, info.context or {}))
        try:
            section = handler(data)
        except ValidationError as error:
            found += cls._in_plain_words(error.errors(include_url=False))
        if found:
            raise refusal(cls.__name__, found)
        return section

    @classmethod
    def _missing_space(cls, data: Any) -> str:
        """`bind:8080` is a text, where `bind: 8080` is a mapping."""
        key, colon, value = data.partition(":") if isinstance(data, str) else ("", "", "")
        return (
            suggestion(f"{key}: {value}") if colon and key in cls.written_keys() and _is_short(data) else ""
        )

    @classmethod
    def _in_plain_words(cls, details: list[ErrorDetails]) -> Iterator[Found]:
        known = cls.written_keys()
        unknown = [str(detail["loc"][-1]) for detail in details if detail["type"] == "extra_forbidden"]
        meant = {nearest(key, known) for key in unknown}
        for detail in details:
            kind = detail["type"]
            if kind == "missing" and detail["loc"][-1] in meant:
                continue  # it is there, but misspelt: one mistake, told once
            if kind == "too_short" and detail["input"]:
                continue  # there are some, but none of them is right: each tells for itself
            yield cls._one_in_plain_words(detail)

    @classmethod
    def _one_in_plain_words(cls, detail: ErrorDetails) -> Found:
        kind, path, value = detail["type"], detail["loc"], detail["input"]
        context = detail.get("ctx", {})
        if kind == "problem":
            words = context["words"]
        elif kind == "value_error":
            words = str(context["error"])
        elif kind == "missing":
            path, words = (AT_KEY,), f"needs {cls.required.get(str(path[-1]), repr(path[-1]))}"
        elif kind == "extra_forbidden":
            words = _unknown_key(str(path[-1]), cls.written_keys())
            path += (AT_KEY,)
        elif kind in ("tuple_type", "list_type"):
            better = suggestion(f"[{value}]") if _is_short(value) else ""
            words = f"must be a list, not {shown(value)}{better}"
        elif kind in ("dict_type", "mapping_type"):
            words = f"must be a mapping, not {shown(value)}"
        elif kind == "too_short":
            words = "needs at least one"
        else:
            words = detail["msg"]
        return path, words


def refusal(what: str, found: Iterable[Found]) -> ValidationError:
    """All these problems at once, each with its path from here on."""
    return ValidationError.from_exception_data(what, [_line_error(*each) for each in found])


def _line_error(path: Path, words: str) -> InitErrorDetails:
    # The words go in as a value: a brace in them is no placeholder then.
    return InitErrorDetails(
        type=PydanticCustomError("problem", "{words}", {"words": words}), loc=path, input=None
    )


def _is_short(value: object) -> bool:
    """Whether a suggestion can repeat it as it is."""
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= 40


def _unknown_key(key: str, known: tuple[str, ...]) -> str:
    near = did_you_mean(key, known)
    return "unknown key" + (near or f" (known here: {', '.join(known)})")


# --- looking at data that may be of any shape ---


def peek(value: Any, key: str) -> Any:
    """What a mapping, or a section built in code, has under a key; None if there is no such thing."""
    if isinstance(value, Mapping):
        return value.get(key)
    return getattr(value, key, None) if isinstance(value, Section) else None


def items_of(value: Any) -> list[tuple[int, Any]]:
    """The items of a list with their numbers; none if it is no list."""
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def pairs_of(value: Any) -> list[tuple[str, Any]]:
    """The items of a mapping; none if it is no mapping."""
    return list(value.items()) if isinstance(value, Mapping) else []


def readable(read: Callable[[Any], _T], value: Any) -> _T | None:
    """What a field would make of the value, or None where the field will complain itself."""
    try:
        return read(value)
    except ValueError:
        return None
