"""Compiles the way of a request with mypyc: the same source, at half of its cost in the interpreter.

Without a C compiler, or with LB_COMPILE=0, everything runs interpreted, and does the same.
"""

import os

from setuptools import Extension, setup

HOT = {
    "core": "backend budget identity load_table message outlier pool queue rate record route rules seen "
    "share turnover",
    "wire": "chunked fields h1_client h1_server heads",
    "proxy": "attempt connection exchange forward plane retry secure timeouts tunnel upload upstream",
    "observe": "clients records",
}
"""What every request passes. Policies are not compiled: they are anybody's plain Python."""


def compiled() -> list[Extension]:
    if os.environ.get("LB_COMPILE") == "0":
        return []
    from mypyc.build import mypycify

    paths = [f"lb/{room}/{module}.py" for room, modules in HOT.items() for module in modules.split()]
    extensions: list[Extension] = mypycify(paths, group_name="lb")
    for extension in extensions:
        extension.optional = True  # without a compiler the installation goes on
        # Only the modules' entry points are for others: calls among the rest need no detour.
        extension.extra_compile_args += ["-fvisibility=hidden", "-fno-semantic-interposition"]
    return extensions


setup(ext_modules=compiled())
