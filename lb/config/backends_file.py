"""A file of its own with backends: what may stand under `backends` in a pool, in YAML or JSON.

It may have thousands of them, and be written anew many times a second with few of them changed. So there is a
quick way, which reads only what wasn't there the last time, and goes for flawless files alone. Where it finds
anything that it isn't sure of, the whole file is read as a configuration is, which says what is wrong where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import Field

from lb.config.loader import parse, read_text, validated
from lb.config.pools import Backend, backend_address, duplicates
from lb.config.problem import ConfigError
from lb.config.section import Found, Section
from lb.config.shapes import OrShort
from lb.config.written import Plain

Made = TypeVar("Made")

Written = list[tuple[str, Any]]
"""The items of the list: each as a text that says all of it, and as a value where it has been looked at."""


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


class BackendsReader(Generic[Made]):
    """Reads a file again and again, and makes something of each backend. What stood in the file the last time
    isn't looked at again: the very same is made of it."""

    def __init__(self, make: Callable[[Backend], Made]) -> None:
        self._make = make
        self._text: str | None = None  # of the last time, and what came of it
        self._found: Sequence[Made] | ConfigError = ()
        self._known: dict[str, tuple[str, str, Made]] = {}  # ID, address; by what stands in the file

    def read(self, path: str) -> Sequence[Made]:
        """The backends. Raises ConfigError with every problem, each with its line and column."""
        text = read_text(path)
        if text != self._text:
            self._found = self._read(text, path)
            self._text = text
        if isinstance(self._found, ConfigError):
            raise ConfigError(self._found.problems)
        return self._found

    def _read(self, text: str, path: str) -> Sequence[Made] | ConfigError:
        try:
            written = _of_json(text) if _is_json(text) else _of_yaml(text, self._known)
            return self._of_items(written)
        except (ValueError, TypeError, KeyError, RecursionError, ConfigError):
            pass  # it is told below, with its place
        try:
            found = validated(BackendsFile, _tabs_as_spaces(text), path, None, "backends", "backends")
        except ConfigError as error:
            return error
        return [self._make(each) for each in found.backends]

    def _of_items(self, written: Written) -> Sequence[Made]:
        """Raises ValueError where any of them is wrong, or there twice."""
        known = self._known
        fresh = {key: value for key, value in written if key not in known}
        if fresh:
            made = BackendsFile.model_validate({"backends": list(fresh.values())}).backends
            known = known | {
                key: (each.id, str(each.address), self._make(each))
                for key, each in zip(fresh, made, strict=True)
            }
        found = [known[key] for key, _ in written]
        if len({each[0] for each in found}) < len(found) or len({each[1] for each in found}) < len(found):
            raise ValueError("one is there twice")
        self._known = {key: known[key] for key, _ in written}
        return [each[2] for each in found]


# --- JSON ---


def _is_json(text: str) -> bool:
    return text.lstrip().startswith(("[", "{"))


def _of_json(text: str) -> Written:
    """Raises ValueError, TypeError, KeyError or RecursionError where anything is wrong. JSON is YAML too, but
    is read a hundred times as quickly so."""
    value = json.loads(text, object_pairs_hook=_no_key_twice)
    if isinstance(value, dict):
        if value.keys() != {"backends"}:
            raise KeyError("backends, and nothing else")
        value = value["backends"]
    if not isinstance(value, list):
        raise TypeError("no list")
    return [(repr(item), item) for item in value]


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _tabs_as_spaces(text: str) -> str:
    """JSON may be indented with tabs, and has none in a text; YAML may not. Columns stay as they are."""
    return text.replace("\t", " ") if _is_json(text) else text


# --- YAML ---
#
# A list in blocks can be taken apart before it is read: an item begins where a line begins with a dash at the
# list's own column, and nothing in one item says anything of another one. That holds as long as each part is
# exactly one item, which is seen when it is read; as line breaks are what they look like; and as there are
# neither anchors nor a second document.

_NOTHING = r"(?: *+(?:#[^\n]*+)?\n)*+"
_BEGINNING = re.compile(
    rf"\ufeff?(?:---\n)?{_NOTHING}(?:backends: *+(?:#[^\n]*+)?\n)?{_NOTHING}( *+)(?=-[ \n])"
)
_DEEPEST = 16  # columns that a list is indented by
_UNSURE = re.compile(r"[&*!%\t\r\x85\u2028\u2029\ufeff]|^(?:---|\.\.\.)", re.MULTILINE)

_VALUE = r"""(?:"[\w.:/\[\] -]*"|'[\w.:/\[\] -]*'|[A-Za-z0-9/](?:[\w./-]|:(?=[\w/]))*)"""
_PAIR = rf"[a-z]+: +{_VALUE}"
_PAIRS = re.compile(rf"([a-z]+): +({_VALUE})", re.ASCII)


def _of_yaml(text: str, known: Mapping[str, object]) -> Written:
    """Raises ValueError or ConfigError where it isn't such a list, or anything is wrong."""
    begins = _BEGINNING.match(text)
    if begins is None or len(begins[1]) > _DEEPEST:
        raise ValueError("no list in blocks")
    *others, last = re.split(rf"\n(?={begins[1]}-[ \n])", text[begins.start(1) :])
    parts = [*(f"{each}\n" for each in others), last]
    plain, found, harder = _plain(begins[1]), dict[str, Any](), []
    for part in parts:
        if part in known or part in found:
            continue
        match = plain.fullmatch(part)
        if match is None:
            harder.append(part)
        found[part] = _value_of(match) if match is not None else None
    if harder:
        found |= zip(harder, _all_of(harder), strict=True)
    return [(part, found.get(part)) for part in parts]


@cache
def _plain(indentation: str) -> re.Pattern[str]:
    """An item as most are, which needs no parser of YAML: a value, or pairs in braces or one to a line."""
    braces = rf"\{{ *({_PAIR}(?: *, *{_PAIR})*) *\}}"
    lines = rf"({_PAIR}(?: *\n{indentation}  {_PAIR})*)"
    return re.compile(rf"{indentation}- (?:{braces}|{lines}|({_VALUE}))[ \n]*", re.ASCII)


def _value_of(item: re.Match[str]) -> Any:
    if item[3] is not None:
        return _scalar(item[3])
    pairs = _PAIRS.findall(item[1] or item[2])
    return _no_key_twice([(key, _scalar(value)) for key, value in pairs])


def _scalar(written: str) -> str:
    return written[1:-1] if written[0] in "\"'" else Plain(written)


def _all_of(parts: Sequence[str]) -> list[Any]:
    """The values of items that need the parser. Raises ValueError where one isn't an item for itself."""
    text = "".join(["backends:\n", *parts])
    if _UNSURE.search(text):
        raise ValueError("more than a list")
    document, problems = parse(text, "", "backends")
    value = document.value
    assert isinstance(value, dict)  # it begins with a key
    if problems or value.keys() != {"backends"} or len(value["backends"]) != len(parts):
        raise ValueError("more than items")
    return list(value["backends"])
