"""A file that is looked at for changes.

Looking is asking for its size, times and inode. That sees what editors do (another file takes its name), what
Kubernetes does to a ConfigMap (a link on the way to it is turned), and works on every file system, where
inotify sees neither a network's changes nor those behind a link that it wasn't told of.
"""

from __future__ import annotations

import os
from pathlib import Path

# Enough to ask what it is. A pipe would let us wait otherwise, where there is no O_PATH.
_HOLDING = getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK

Signature = tuple[int, int, int, int, int]


def signature(path: str | Path) -> Signature | None:
    """What tells a file from another one in its place. None where there is none: it is being replaced, or has
    gone, and what runs goes on."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class _Held:
    """A file that is kept, so that we see whether it is still there. Its number doesn't tell: the next file
    may well have the same one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def has_gone(self) -> bool:
        """Whether another one was renamed to its name, say."""
        try:
            return os.fstat(self._descriptor).st_nlink == 0
        except OSError:  # as a network's file system says it
            return True

    def __del__(self) -> None:
        os.close(self._descriptor)


def _held(path: Path) -> _Held | None:
    try:
        return _Held(os.open(path, _HOLDING))
    except OSError:
        return None


class WatchedFile:
    """A file. `reading` is to be called before it is read: a change from then on is another one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: Signature | None = None  # what it was when it was read last
        self._seen: Signature | None = None  # what it was when we looked last
        self.restless = 0  # looks in a row at which it was another one than at the look before
        self.replaced = 0  # so often among them another file had taken its place
        self._held: _Held | None = None  # while it is restless

    def reading(self) -> None:
        """It is about to be read."""
        self._read = self._seen = signature(self.path)
        self.restless, self.replaced, self._held = 0, 0, None

    def has_changed(self) -> bool:
        """Whether it is another one than was read last, and was so at the last look already: nobody is
        just writing it."""
        now = signature(self.path)
        before, self._seen = self._seen, now
        if now == before or now is None:
            self.restless, self.replaced, self._held = 0, 0, None
            return now is not None and now != self._read
        self.restless += 1
        self.replaced += self._held is not None and self._held.has_gone()
        self._held = _held(self.path)
        return False

    @property
    def there(self) -> bool:
        """Whether there was such a file at the last look."""
        return self._seen is not None

    @property
    def was_there(self) -> bool:
        """Whether there was such a file when it was read last."""
        return self._read is not None
