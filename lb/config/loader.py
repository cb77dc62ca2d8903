"""YAML text to plain values, with the place of each key and value.

Composed to nodes and built here, not by PyYAML's constructor, since that drops the places, lets the last of
two equal keys win, and makes booleans and octal numbers of text. Scalars stay text (see `written`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from lb.config.problem import ConfigError, Problem
from lb.config.section import AT_KEY, Section
from lb.config.written import Plain, is_nothing, quoted, shown

_DEEPEST = 32
_MOST_VALUES = 200_000
_MOST_NODES = 2 * _MOST_VALUES  # keys are nodes, too; to read on would take minutes
_MOST_BYTES = 16 * 2**20
_STRUCTURE_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str"))
_MERGE = "<<"

_SIMPLE_KEY = re.compile(r"[\w*-][\w.*-]{0,62}", re.ASCII)

AnySection = TypeVar("AnySection", bound=Section)

Mark = tuple[int, int]
"""Line and column, from 1."""


@dataclass(slots=True)
class Place:
    """Where a value is, and its key if it has one, and what it holds."""

    value: Mark
    key: Mark | None = None
    inside: dict[str | int, Place] = field(default_factory=dict)
    values: int = 1


@dataclass(frozen=True, slots=True)
class Document:
    """A file as plain values, and where each of them stands."""

    name: str
    value: object
    root: Place

    def problem(self, path: Sequence[str | int], message: str) -> Problem:
        """A problem of the value at a path, or of its key if the path ends so.

        A step that isn't written is left out, as where a short form stands for a mapping.
        """
        place, steps = self.root, []
        for step in path:
            inner = place.inside.get(step)
            if inner is not None:
                place = inner
                steps.append(step)
        at_key = bool(path) and path[-1] == AT_KEY
        mark = place.key if at_key and place.key is not None else place.value
        return _problem(self.name, mark, steps, message)


def _problem(name: str, mark: Mark, path: Sequence[str | int], message: str) -> Problem:
    shown = _path_shown(path)
    return Problem(name, *mark, f"{shown}: {message}" if shown else message)


def _path_shown(path: Sequence[str | int]) -> str:
    """`pools.greeter.backends[1].weight`; a key with odd characters is quoted in brackets."""
    shown = ""
    for step in path:
        if isinstance(step, int):
            shown += f"[{step}]"
        elif _SIMPLE_KEY.fullmatch(step):
            shown += f".{step}" if shown else step
        else:
            shown += f"[{quoted(step)}]"
    return shown


class _Loader(yaml.SafeLoader):
    """Leaves every plain scalar a text, and goes only so deep."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  PyYAML's own way
    depth = 0
    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        self.nodes += 1
        if self.nodes > _MOST_NODES:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"more than {_MOST_VALUES} values", mark)
        if self.depth > _DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"more than {_DEEPEST} levels deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_text(path: str | FilePath) -> str:
    """The text of a file, or a ConfigError that says why there is none."""

    def error(message: str, line: int = 1, column: int = 1) -> ConfigError:
        return ConfigError([Problem(str(path), line, column, message)])

    try:
        with open(path, "rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise error("there is no such file") from None
    except IsADirectoryError:
        raise error("is a directory, not a file") from None
    except (OSError, ValueError) as failure:
        why = failure.strerror if isinstance(failure, OSError) else str(failure)
        raise error(f"can't be read: {why}") from None
    if len(content) > _MOST_BYTES:
        raise error(f"is larger than {_MOST_BYTES // 2**20} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as failure:
        before = content[: failure.start]
        line_start = before.rfind(b"\n") + 1
        column = len(before[line_start:].decode("utf-8")) + 1
        raise error("is not UTF-8 text from here on", before.count(b"\n") + 1, column) from None


def validated(
    model: type[AnySection],
    text: str,
    name: str,
    directory: FilePath | None,
    needs: str = "pools",
    short: str = "",
) -> AnySection:
    """The model of a text. Raises ConfigError with every problem. `needs` is a key that must be there, and
    `short` one that a list alone stands for."""
    document, problems = parse(text, name, needs, short)
    try:
        found = model.model_validate(document.value, context={"directory": directory})
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problems.append(document.problem(detail["loc"], detail["ctx"]["words"]))
        raise ConfigError(problems) from None
    if problems:
        raise ConfigError(problems)
    return found


def parse(text: str, name: str, needs: str = "pools", short: str = "") -> tuple[Document, list[Problem]]:
    """The document, and what is wrong with it so far (keys that are there twice, say).

    Where it is a list alone, it may be meant as what stands under the key `short`. Raises ConfigError where
    there is no document to go on with.
    """
    text = text.removeprefix("\ufeff")
    node = _compose(text, name)
    builder = _Builder(name, [short] if short and isinstance(node, yaml.SequenceNode) else [])
    value, root = builder.build(node) if node is not None else (None, Place((1, 1)))
    if is_nothing(value):
        raise ConfigError([Problem(name, *root.value, f"the file is empty: it needs {needs}")])
    if short and isinstance(value, list):
        value, root = {short: value}, Place(root.value, None, {short: root}, root.values)
    if not isinstance(value, dict):
        words = f"the file must be a mapping with keys such as {needs}, not {shown(value)}"
        raise ConfigError([Problem(name, *root.value, words)])
    return Document(name, value, root), builder.problems


def _compose(text: str, name: str) -> yaml.Node | None:
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        message = f"the character U+{_code_point(error.character):04X} can't stand in YAML"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = _syntax_words(error)
    except (ValueError, OverflowError) as error:  # PyYAML's own slip, as in "\\UFFFFFFFF"
        line, column = (loader.line + 1, loader.column + 1) if loader else (1, 1)
        message = f"not valid YAML: {error}"
    raise ConfigError([Problem(name, line, column, message)])


def _code_point(character: str | int) -> int:
    return character if isinstance(character, int) else ord(character)


def _syntax_words(error: yaml.MarkedYAMLError) -> str:
    words = error.problem or error.context or "syntax error"
    if "'\\t'" in words:
        return "not valid YAML: a tab can't stand here; indent with spaces"
    if "mapping values are not allowed here" in words:
        return "not valid YAML: no colon can stand here (look at the indentation; quote text that has ': ')"
    if error.context == "expected a single document in the stream":
        return "there is a second document behind this ---, but a configuration is one"
    start = error.context_mark
    context = f" ({error.context} from line {start.line + 1})" if error.context and start else ""
    return f"not valid YAML: {words}{context}"


class _Builder:
    """Nodes to values and places. What aliases share is built once, so that no file explodes."""

    def __init__(self, name: str, path: list[str | int]) -> None:
        self.name = name
        self.problems: list[Problem] = []
        self._built: dict[int, tuple[object, Place]] = {}
        self._open: set[int] = set()
        self._path = path  # of what is being built, from the root on

    def build(self, node: yaml.Node) -> tuple[object, Place]:
        if id(node) in self._open:
            raise ConfigError([*self.problems, self._problem(node, "refers to itself by an alias")])
        if id(node) not in self._built:
            self._open.add(id(node))
            self._built[id(node)] = self._build(node)
            self._open.remove(id(node))
        return self._built[id(node)]

    def _build(self, node: yaml.Node) -> tuple[object, Place]:
        place = Place(_mark(node))
        if node.tag not in _STRUCTURE_TAGS:
            self._tell(node, f"the tag {quoted(node.tag)} means nothing here")
        value: object
        if isinstance(node, yaml.MappingNode):
            value = self._mapping(node, place)
        elif isinstance(node, yaml.SequenceNode):
            value = [self._child(item, place, number, None) for number, item in enumerate(node.value)]
        else:
            value = _scalar(node)
        if place.values > _MOST_VALUES:
            message = f"holds more than {_MOST_VALUES} values (aliases count as what they stand for)"
            raise ConfigError([*self.problems, self._problem(node, message)])
        return value, place

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, object]:
        found: dict[str, object] = {}
        merges = []
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                self._tell(key_node, "a key must be text, not a list or a mapping")
            elif key == _MERGE and not key_node.style:
                merges.append(value_node)
            elif key in found:
                first = place.inside[key].key
                self._path.append(key)
                self._tell(key_node, f"this key is here twice, first on line {first[0] if first else 0}")
                self._path.pop()
            else:
                found[key] = self._child(value_node, place, key, _mark(key_node))
        for merge in merges:
            for other, inside in self._merged(merge):
                for key in [key for key in other if key not in found]:
                    found[key] = other[key]
                    place.inside[key] = inside.inside[key]
                    place.values += inside.inside[key].values
        return found

    def _child(self, node: yaml.Node, parent: Place, step: str | int, key: Mark | None) -> object:
        self._path.append(step)
        value, place = self.build(node)
        self._path.pop()
        parent.inside[step] = Place(place.value, key, place.inside, place.values)
        parent.values += place.values
        return value

    def _merged(self, node: yaml.Node) -> Iterator[tuple[dict[str, object], Place]]:
        """The mappings behind a `<<`: one, or a list of them, of which the first one wins."""
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value, place = self.build(item)
            if isinstance(value, dict):
                yield value, place
            else:
                self._tell(item, "what << merges must be a mapping")

    def _tell(self, node: yaml.Node, message: str) -> None:
        self.problems.append(self._problem(node, message))

    def _problem(self, node: yaml.Node, message: str) -> Problem:
        return _problem(self.name, _mark(node), self._path, message)


def _scalar(node: Any) -> str:
    return str(node.value) if node.style else Plain(node.value)


def _mark(node: yaml.Node) -> Mark:
    return node.start_mark.line + 1, node.start_mark.column + 1
