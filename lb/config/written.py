"""Values as they are written in the file, and words to talk about them.

A plain scalar of YAML stays the text that it is until a field says what it wants: a host named `on`, an ID
`1.10` and the octal trap `010` are then no surprises (YAML 1.1 makes them true, 1.1 and 8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

NULLS = ("", "~", "null", "Null", "NULL")
_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?", re.ASCII)
_TRUE, _FALSE = ("true", "on"), ("false", "off")
_LONGEST_SHOWN = 60


class Plain(str):
    """A scalar written without quotes: its kind is for the field to say."""

    __slots__ = ()


def is_nothing(value: object) -> bool:
    """Whether it is null: `key:` with nothing behind it, `~` or `null`."""
    return value is None or (isinstance(value, Plain) and value in NULLS)


def as_bool(value: object) -> bool | None:
    """True for true and on, False for false and off, None for all else (yes and no are text)."""
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, Plain) else ""
    return True if word in _TRUE else False if word in _FALSE else None


def is_off(value: object) -> bool:
    """Whether a section is turned off: off or false; "off" in quotes says the same."""
    return as_bool(value) is False or value == "off"


def as_int(value: object) -> int | None:
    """A whole number in plain decimal, or None."""
    if isinstance(value, Plain):
        return int(value) if _INT.fullmatch(value) else None
    return value if type(value) is int else None


def as_float(value: object) -> float | None:
    """A number in plain decimal, or None."""
    if isinstance(value, Plain):
        return float(value) if _FLOAT.fullmatch(value) else None
    return float(value) if type(value) in (int, float) else None  # type: ignore[arg-type]


def natural(value: object) -> object:
    """The value as a reader who knows no fields would take it: null, booleans, numbers, else text."""
    if isinstance(value, Mapping):
        return {key: natural(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [natural(item) for item in value]
    if not isinstance(value, Plain):
        return value
    if is_nothing(value):
        return None
    for read in (as_bool, as_int, as_float):
        found = read(value)
        if found is not None:
            return found
    return str(value)


def quoted(text: str) -> str:
    """A piece of the file on one line, however long or odd it is."""
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…")


def shown(value: object) -> str:
    """A value in the words of a message that says what it is not."""
    if is_nothing(value):
        return "nothing"
    if isinstance(value, str):
        kind = natural(Plain(value))
        if isinstance(kind, str):
            return quoted(str(value))
        return str(value) if isinstance(value, Plain) else f"the text {quoted(str(value))}"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else quoted(str(value))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest of the known words, or nothing if none is near."""
    near = nearest(word, known)
    return suggestion(near) if near else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, if any is like it."""
    if len(word) > _LONGEST_SHOWN:
        return None
    from difflib import get_close_matches  # only where something is wrong

    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def suggestion(better: str) -> str:
    """` (did you mean X?)`"""
    return f" (did you mean {better}?)"
