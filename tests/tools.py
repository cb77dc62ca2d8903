"""Programs that some tests need, and that aren't Python."""

import os
import shutil
import sys
from pathlib import Path

import pytest

SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"  # where servers lie; not on every user's PATH
PACKAGES = str(Path(sys.executable).parent)  # where Python packages put programs


def need(program: str, package: str | None = None) -> str:
    """The path of a program. Where it's missing the test is skipped on a laptop, and fails under CI=true.

    `package` is what has to be installed, where it isn't called like the program.
    """
    path = shutil.which(program) or shutil.which(program, path=f"{SYSTEM}:{PACKAGES}")
    if path is None:
        message = f"{program} isn't installed (package {package or program})"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path
