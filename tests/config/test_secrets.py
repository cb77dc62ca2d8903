"""What the admin API shows of the configuration has no secrets in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
from pydantic import Field

from lb.config import ConfigError, load, loads
from lb.config.model import Config
from lb.config.secret import TokenSource
from lb.config.section import HIDDEN, SECRET, Section

ROOT = Path(__file__).parents[2]


class Account(Section):
    name: str = ""
    password: Annotated[str | None, SECRET] = None
    keys: tuple[Annotated[str, SECRET], ...] = ()
    by_name: dict[str, Annotated[str, SECRET]] = Field(default_factory=dict)


class Accounts(Section):
    accounts: tuple[Account, ...] = ()


def test_a_secret_is_never_shown_wherever_it_is() -> None:
    account = Account(name="a", password="hunter2", keys=("hunter3", "hunter4"), by_name={"x": "hunter5"})
    shown = Accounts(accounts=(account, Account())).model_dump(mode="json")
    assert "hunter" not in json.dumps(shown)
    assert shown["accounts"][0] == {
        "name": "a",
        "password": HIDDEN,
        "keys": [HIDDEN, HIDDEN],
        "by_name": {"x": HIDDEN},
    }
    assert shown["accounts"][1]["password"] is None  # that there is none is no secret
    assert account.password == "hunter2"
    assert account.model_dump()["keys"] == ("hunter3", "hunter4")


def fields(section: type[Section], seen: set[type[Section]]) -> Iterator[tuple[str, Any]]:
    """All fields of a section and of those within it, with their annotations."""
    seen.add(section)
    for name, field in section.model_fields.items():
        yield f"{section.__name__}.{name}", field
        for inner in _sections(field.annotation):
            if inner not in seen:
                yield from fields(inner, seen)


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _marks(field: Any) -> bool:
    return SECRET in field.metadata or "PlainSerializer" in repr(field.annotation)


def test_whatever_sounds_like_a_secret_is_marked_or_says_where_it_is() -> None:
    """Paths of files and names of variables are fine: they end in the file itself or in `TokenSource`."""
    found = dict(fields(Config, set()))
    assert len(found) > 50
    for name, field in found.items():
        if re.search("password|passwd|secret|token|credential|users|hash$", name.partition(".")[2]):
            sources = [each for each in _sections(field.annotation) if issubclass(each, TokenSource)]
            where = bool(sources) or "path" in (field.description or "").lower()
            assert _marks(field) or where, f"{name}: mark it with SECRET, or read it from a file"


# The files that tls.yaml names are anybody's own.
EXAMPLES = [path for path in sorted((ROOT / "config").glob("*.yaml")) if path.name != "tls.yaml"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_no_example_shows_a_hash_or_a_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of what is read from files that the configuration names."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    shown = repr(load(path).model_dump(mode="json"))
    assert not re.search(r"\$2[aby]\$|\$scrypt\$|\$pbkdf2|PRIVATE KEY|Bearer |Basic [A-Za-z0-9]", shown)


@pytest.mark.parametrize("key", ["token: hunter2", "token: [hunter2]"])
def test_a_secret_in_the_file_itself_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loads(f"admin: {{{key}}}\npools: {{a: {{backends: [h:1]}}}}\n")
    assert "hunter2" not in str(refused.value)


def test_fields_that_prove_who_we_are_to_backends_are_not_shown() -> None:
    config = loads(
        "pools: {p: {backends: ['h:1']}}\n"
        "routes: [{pool: p, headers: {request: {set: {Authorization: Bearer hunter2, X-Zone: north},"
        " add: {X-Api-Key: hunter3}}}}]\n"
    )
    shown = config.model_dump(mode="json")["routes"][0]["headers"]["request"]
    assert "hunter" not in json.dumps(shown)
    assert shown["set"] == {"Authorization": HIDDEN, "X-Zone": "north"}
