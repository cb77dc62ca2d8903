"""The pages as what they are made of: fenced blocks, tables, links, words in backticks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = "README.md"
PAGES = [README, "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block. `kind` is all that stands behind the fence, such as `yaml pool`."""

    page: str
    line: int
    kind: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def prose_of(page: str) -> str:
    """The page without its blocks."""
    return _FENCE.sub("", text_of(page))


def blocks(*kinds: str, page: str = "") -> list[Block]:
    """All blocks of these kinds, in the order of the pages."""
    return [
        Block(each, text_of(each).count("\n", 0, match.start()) + 1, match[1].strip(), match[2])
        for each in ([page] if page else PAGES)
        for match in _FENCE.finditer(text_of(each))
        if not kinds or match[1].strip() in kinds
    ]


def pairs(first: str, *second: str) -> list[tuple[Block, Block]]:
    """Blocks of the first kind, each with the next block, where that is of one of the other kinds."""
    found = []
    for page in PAGES:
        all_of_them = blocks(page=page)
        found += [
            (one, two) for one, two in pairwise(all_of_them) if one.kind == first and two.kind in second
        ]
    return found


def commands(page: str) -> list[str]:
    """The lines of the page's shell blocks, without comments."""
    lines = [line for block in blocks("sh", page=page) for line in block.text.splitlines()]
    return [line for each in lines if (line := re.sub(r"(^|\s+)#.*", "", each).strip())]


def spans(page: str) -> Iterator[str]:
    """What stands in backticks."""
    for match in re.finditer(r"`([^`\n]+)`", prose_of(page)):
        yield match[1]


def table(page: str, first_heading: str) -> list[list[str]]:
    """The cells of the rows of all tables whose first column has this heading, without backticks."""
    rows: list[list[str]] = []
    before = heading = ""
    for line in prose_of(page).splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and not before.startswith("|"):
            heading = cells[0]
        elif line.startswith("|") and heading == first_heading and not set(line) <= set("|- :"):
            rows.append(cells)
        before = line
    assert rows, f"{page} has no table of {first_heading}"
    return rows


def files_of(page: str) -> dict[str, str]:
    """The Python files of the page: blocks that begin with their name."""
    found = {}
    for block in blocks("python", page=page):
        match = re.match(r"# (\w+\.py)\n", block.text)
        if match:
            found[match[1]] = block.text
    return found
