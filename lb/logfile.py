"""A file for log lines, written by a thread of its own: a slow disk or a full pipe holds nobody."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections import deque

WAITING = 16 * 1024 * 1024  # bytes that may wait for a slow reader; more are refused


class LogFile:
    """Append-only. `-` is standard output.

    Where several processes write to it, `turns` is a descriptor that all of them have: they take turns by a
    lock on it, since a pipe that is nearly full takes a part of what one has to say, and then of another.
    """

    def __init__(self, path: str, turns: int = -1) -> None:
        self.path = path
        self._turns = turns
        self._descriptor = -1
        self._batches: deque[bytes | int] = deque()  # a number is the descriptor for what comes behind it
        self._waiting = 0
        self._error: OSError | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log file", daemon=True)

    def open(self) -> None:
        """Raises OSError where the file can't be written."""
        self._descriptor = sys.stdout.fileno() if self.path == "-" else self._opened()
        self._thread.start()

    def reopen(self) -> None:
        """Writes what comes from now on to the file that has this path now: the other one was moved away.

        Raises OSError where it can't be opened; the old one is written on then.
        """
        if self.path == "-":
            return
        descriptor = self._opened()
        with self._changed:
            self._batches.append(descriptor)
            self._changed.notify()

    def _opened(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, data: bytes) -> int:
        """Takes the lines to be written soon. Raises OSError for what went wrong since the last call."""
        with self._changed:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._waiting + len(data) > WAITING:
                raise BlockingIOError("the log's reader is too slow")
            self._batches.append(data)
            self._waiting += len(data)
            self._changed.notify()
        return len(data)

    def close(self, timeout: float = 2.0) -> None:
        """Writes what waits, for at most so many seconds."""
        if not self._thread.is_alive():
            return
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if self.path != "-" and not self._thread.is_alive():
            os.close(self._descriptor)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._batches and not self._closing:
                    self._changed.wait()
                if not self._batches:
                    return
                batch = self._batches.popleft()
            if isinstance(batch, int):
                os.close(self._descriptor)
                self._descriptor = batch
            else:
                self._write(batch)

    def _write(self, data: bytes) -> None:
        try:
            if self._turns >= 0:
                fcntl.lockf(self._turns, fcntl.LOCK_EX)  # goes with the process, whatever becomes of it
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self._error = error
        finally:
            if self._turns >= 0:
                fcntl.lockf(self._turns, fcntl.LOCK_UN)
        with self._changed:
            self._waiting -= len(data)
