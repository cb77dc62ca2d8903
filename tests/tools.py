"""Programs that some tests need, and that aren't Python packages."""

import os
import shutil

import pytest

SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"  # where servers lie; not on every user's PATH


def need(program: str, package: str | None = None) -> str:
    """The path of a program. Where it's missing the test is skipped on a laptop, and fails under CI=true.

    `package` is what has to be installed, where it isn't called like the program.
    """
    path = shutil.which(program) or shutil.which(program, path=SYSTEM)
    if path is None:
        message = f"{program} isn't installed (package {package or program})"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path
