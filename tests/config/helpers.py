"""Texts with ▸ at each place where a problem is expected: easier to read and to change than numbers."""

from textwrap import dedent

from lb.config import Config, ConfigError, loads

HERE = "▸"


def marked(text: str) -> tuple[str, list[str]]:
    """The text without its marks, and their places as `line:column`."""
    text = dedent(text).lstrip("\n")
    places = []
    while HERE in text:
        before, _, behind = text.partition(HERE)
        places.append(f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}")
        text = before + behind
    return text, places


def problems(text: str) -> list[str]:
    """Every problem of a text as `line:column: message`."""
    try:
        loads(text)
    except ConfigError as error:
        return [str(problem).removeprefix("<string>:") for problem in error.problems]
    return []


def assert_problems(text: str, *messages: str) -> None:
    """Exactly these, each at its mark."""
    text, places = marked(text)
    assert len(places) == len(messages), "one mark per message"
    assert problems(text) == [
        f"{place}: {message}" for place, message in zip(places, messages, strict=True)
    ], text


def config(text: str) -> Config:
    """A configuration without problems; one pool is added where the text has none."""
    text = dedent(text).lstrip("\n")
    return loads(text if "pools:" in text else f"{text}\npools: {{p: {{backends: ['h:1']}}}}\n")
