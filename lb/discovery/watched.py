"""A file that is looked at for changes.

Looking is asking for its size, times and inode. That sees what editors do (another file takes its name), what
Kubernetes does to a ConfigMap (a link on the way to it is turned), and works on every file system, where
inotify sees neither a network's changes nor those behind a link that it wasn't told of.
"""

from __future__ import annotations

import os
from pathlib import Path

Signature = tuple[int, ...]


def signature(path: str | Path) -> Signature | None:
    """What tells a file from another one in its place. None where there is none: it is being replaced, or has
    gone, and what runs goes on."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class WatchedFile:
    """A file. `reading` is to be called before it is read: a change from then on is another one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: Signature | None = None  # what it was when it was read last
        self._seen: Signature | None = None  # what it was when we looked last

    def reading(self) -> None:
        """It is about to be read."""
        self._read = self._seen = signature(self.path)

    def has_changed(self) -> bool:
        """Whether it is another one than was read last, and was so at the last look already: nobody is
        just writing it."""
        now = signature(self.path)
        at_rest, self._seen = now == self._seen, now
        return now is not None and at_rest and now != self._read

    @property
    def there(self) -> bool:
        """Whether there was such a file at the last look."""
        return self._seen is not None

    @property
    def was_there(self) -> bool:
        """Whether there was such a file when it was read last."""
        return self._read is not None
