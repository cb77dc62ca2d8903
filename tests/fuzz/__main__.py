"""Fuzzes each target for so long: `python -m tests.fuzz [--seconds N] [TARGET …]`, or `make fuzz`.

It runs on a copy of the source without the compiled modules, which hide from the fuzzer what they do. What
crashes or hangs a target is written to tests/fuzz/corpus/TARGET/, where the replay test will find it from
then on. Exits with 1 if there was any.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
WORDS = Path(__file__).parent / "words"
LONGEST = {"config": 8192, "scenario": 8192}  # bytes of an input; where nothing is said, 2048
HANGS = 10  # seconds for one input


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target [60]")
    parser.add_argument("--keep", type=Path, help="a folder in which what was found to be new stays")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all if none")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.targets if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {unknown[0]}: there are {', '.join(TARGETS)}")
    bad = []
    with tempfile.TemporaryDirectory(prefix="lb-fuzz-") as directory:
        place = Path(directory)
        plain = shutil.ignore_patterns("*.so", "__pycache__")
        for room in ("lb", "tests", "config"):
            shutil.copytree(ROOT / room, place / room, ignore=plain)
        for name in arguments.targets or TARGETS:
            print(f"--- {name}: {arguments.seconds} s", flush=True)
            if not fuzz(name, arguments.seconds, place, arguments.keep or place / "found"):
                bad.append(name)
    print(f"crashed: {', '.join(bad)}" if bad else "nothing crashed, nothing hung")
    return 1 if bad else 0


def fuzz(name: str, seconds: int, place: Path, keep: Path) -> bool:
    """Whether nothing was found."""
    found, start, crashes = keep / name, place / "seeds" / name, CORPUS / name
    for each in (found, start, crashes):
        each.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (start / str(number)).write_bytes(seed)
    flags = [
        f"-max_total_time={seconds}",
        f"-timeout={HANGS}",
        f"-max_len={LONGEST.get(name, 2048)}",
        f"-artifact_prefix={crashes}/",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    words = WORDS / f"{name}.dict"
    if words.exists():
        flags.append(f"-dict={words}")
    # PYTHONSAFEPATH is of no use here: the copy must come first, wherever `lb` is installed from.
    environment = {**os.environ, "PYTHONPATH": str(place)}
    command = [sys.executable, "-m", "tests.fuzz.one", name, *flags, found, crashes, start]
    return subprocess.run(command, cwd=place, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
