"""One target under atheris: `python -m tests.fuzz.one TARGET [libFuzzer's flags] CORPUS …`.

To be run where the modules of `lb` are not compiled: atheris sees how far an input gets by the bytecode.
`python -m tests.fuzz` sees to that.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["lb", "h11"]):
    from tests.fuzz.targets import TARGETS

from lb.wire import h1_server

assert h1_server.__file__.endswith(".py"), "the compiled modules are in the way"


def main() -> None:
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
