"""The load table between real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from lb.control.shared_memory import SharedTable

ROOT = Path(__file__).parents[2]
WRITER = """
import sys, time
from lb.control.shared_memory import SharedTable
shared = SharedTable(int(sys.argv[1]), 2, int(sys.argv[2]))
shared.table.set(5, 3)
print(shared.table.others(6), flush=True)
time.sleep(60)
"""


def writer(shared: SharedTable, row: int) -> subprocess.Popen[str]:
    """A process that puts 3 on place 5 of its row, and says what the others have on place 6."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(shared.descriptor), str(row)],
        pass_fds=[shared.descriptor],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_one_process_sees_what_another_writes_until_it_is_dead_and_cleared() -> None:
    shared = SharedTable.make(2)
    first = SharedTable(os.dup(shared.descriptor), 2, 0)
    first.table.set(6, 4)
    with writer(shared, 1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "4\n"
        assert (first.table.others(5), shared.table.total(5)) == (3, 3)
        process.send_signal(signal.SIGKILL)
    assert first.table.others(5) == 3  # the memory doesn't know that nobody is there
    shared.table.clear(1)
    assert (first.table.others(5), shared.table.total(6)) == (0, 4)
    first.close()
    shared.close()


def test_places_that_nobody_uses_take_no_memory() -> None:
    shared = SharedTable.make(100)
    shared.table.total(0)
    size = os.fstat(shared.descriptor)
    assert size.st_size >= 6 * 1024 * 1024
    assert size.st_blocks * 512 <= 100 * os.sysconf("SC_PAGE_SIZE")
    shared.close()


def test_programs_that_are_started_do_not_inherit_it() -> None:
    shared = SharedTable.make(1)
    assert not os.get_inheritable(shared.descriptor)
    shared.close()
