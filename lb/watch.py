"""The configuration's file: loaded, and looked at for changes."""

from __future__ import annotations

from pathlib import Path

from lb.config import Config, loads, read_text
from lb.discovery.watched import WatchedFile

LOOK = 0.5  # seconds between two looks; a file that was the same in both is at rest


class ConfigFile(WatchedFile):
    """A configuration's file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.text = ""  # what it said when it was loaded last, good or not

    def load(self) -> Config:
        """Raises ConfigError with every problem."""
        self.reading()
        self.text = read_text(self.path)
        return loads(self.text, str(self.path), self.path.parent)
