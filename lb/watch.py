"""The configuration's file: loaded, and looked at for changes.

Looking is asking for its size, times and inode. That sees what editors do (another file takes its name), what
Kubernetes does to a ConfigMap (a link on the way to it is turned), and works on every file system, where
inotify sees neither a network's changes nor those behind a link that it wasn't told of.
"""

from __future__ import annotations

import os
from pathlib import Path

from lb.config import Config, loads, read_text

LOOK = 0.5  # seconds between two looks; a file that was the same in both is at rest

Signature = tuple[int, ...]


class ConfigFile:
    """A configuration's file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = ""  # what it said when it was loaded last, good or not
        self._loaded: Signature | None = None  # what it was when it was loaded last, good or not
        self._seen: Signature | None = None  # what it was when we looked last

    def load(self) -> Config:
        """Raises ConfigError with every problem."""
        self._loaded = self._signature()  # first: a change from here on is another one
        self.text = read_text(self.path)
        return loads(self.text, str(self.path), self.path.parent)

    def has_changed(self) -> bool:
        """Whether it is another one than was loaded last, and was so at the last look already: nobody is
        just writing it."""
        now = self._signature()
        at_rest, self._seen = now == self._seen, now
        return now is not None and at_rest and now != self._loaded

    def _signature(self) -> Signature | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None  # it is being replaced, or has gone: what runs goes on
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
