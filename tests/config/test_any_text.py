"""Whatever the text, it is a configuration or a list of problems with places; never anything else."""

from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lb.config import Config, ConfigError, Problem, loads

FULL = (Path(__file__).parents[2] / "config" / "full.yaml").read_text()
WORDS = [
    *":-[]{},#'\"|>?!~\n\t ", "", "  ", ": ", "- ", "!!int", "&a", "*a", "<<: *a", "%YAML 1.1", "---", "...",
    "off", "on", "null", "true", "-1", "1.5", "10s", "0x10", "010", "22:22", "9" * 21, "{}", "[]",
    "pools", "routes", "listeners", "backends", "policy", "options", "[key]",
    "ä", "😀", "\\U", '"\\UFFFFFFFF"', "\ufeff", "\x00", "\x85", "\u2028", "\ud800",
]  # fmt: skip
LINE_ENDS = "\n\r\x85\u2028\u2029"


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """The full example with pieces cut out, doubled, or put in."""
    text = FULL
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        text = text[:start] + draw(st.sampled_from([*WORDS, text[start:end] * 2])) + text[end:]
    return text


@st.composite
def line_mutations(draw: st.DrawFn) -> str:
    """The full example with a value replaced: still YAML, and wrong in what it says."""
    lines = FULL.splitlines()
    for _ in range(draw(st.integers(1, 8))):
        number = draw(st.integers(0, len(lines) - 1))
        key, colon, _ = lines[number].partition(":")
        lines[number] = (
            f"{key}{colon} {draw(st.sampled_from(WORDS))}" if colon else draw(st.sampled_from(WORDS))
        )
    return "\n".join(lines)


WILD = st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=30).map("".join)


@settings(deadline=None)  # a busy machine is no mistake of the text
@given(st.text() | WILD | mutations() | line_mutations())
@example(FULL)
@example("{" * 1000)
@example("? " * 1000)
@example("- " * 1000)
@example("&a [*a]")
@example("&a {<<: *a}")
@example("&a {*a : 1}")
@example("%YAML " + "9" * 5000 + ".1\n---\n")
@example("a: !<tag:yaml.org,2002:merge> {}")
@example("pools: {p: {backends: [h:1], balancer: {policy: p2c, options: {a: 1}}}}")
@example("routes: {0: {pool: p}}\npools: {p: p}")
@example("pools: {'[key]': {'[key]': 1}}")
def test_any_text(text):
    try:
        config = loads(text)
    except ConfigError as error:
        check(error.problems, text)
    else:
        assert isinstance(config, Config)
        assert config.routes
        assert config.pools


def check(problems: list[Problem], text: str) -> None:
    """There are some, in order, each within the text and with words."""
    lines = 1 + sum(text.count(end) for end in LINE_ENDS)
    assert problems
    assert problems == sorted(problems, key=lambda problem: (problem.line, problem.column))
    for problem in problems:
        assert 1 <= problem.line <= lines
        assert problem.column >= 1
        assert problem.message
