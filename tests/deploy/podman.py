"""podman with a store of its own, and a Debian made by debootstrap in place of the image `python:…-slim`: for
a machine that reaches Debian's mirrors and an index of Python packages, and no registry of images."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.tools import need

BASE = "localhost/python:debian-slim"  # what `FROM python:${PYTHON}-slim` finds, with PYTHON=debian
PACKAGES = "python3,python3-venv,python3-pip,python3-dev,ca-certificates"
MIRROR = "http://deb.debian.org/debian"
SUITE = "bookworm"
MINUTES = 60.0  # in seconds
LIMIT = 4096  # files that a container may have open, and processes
DRIVERS = ("overlay", "vfs")  # the second one, which copies everything, where the kernel has no first one
RUNTIMES = ("crun", "runc")


class CannotRun(Exception):
    """Why this machine runs no containers."""


class Podman:
    """A podman that shares nothing with the machine's own: no images, no configuration."""

    def __init__(self, directory: Path, driver: str, runtime: str) -> None:
        self.name = f"{runtime} on {driver}"
        self._driver = driver
        self._store = store = directory / driver
        store.mkdir(exist_ok=True)
        # podman asks for a million, which is more than a machine may allow.
        hard = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
        limits = {name: resource.getrlimit(each)[1] for name, each in hard.items()}
        known = [f"{name}={min(each, LIMIT)}:{min(each, LIMIT)}" for name, each in limits.items() if each > 0]
        containers = store / f"{runtime}.conf"
        containers.write_text(
            f"[containers]\ndefault_ulimits = {json.dumps(known)}\n"
            f'[engine]\nruntime = "{runtime}"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        storage = store / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "{driver}"\ngraphroot = "{store}/graph"\nrunroot = "{store}/run"\n'
        )
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": str(containers),
            "CONTAINERS_STORAGE_CONF": str(storage),
        }

    def run(
        self, *arguments: str, patience: float = MINUTES, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [need("podman"), *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
            **more,
        )

    def __call__(self, *arguments: str, patience: float = MINUTES) -> str:
        """What it prints, where it does what it is told."""
        done = self.run(*arguments, patience=patience)
        assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-4000:])
        return done.stdout.strip()

    def adopt(self, root: Path, name: str) -> None:
        """An image of a file system. Raises CannotRun."""
        command = [
            "tar",
            "-C",
            str(root),
            "-c",
            "--exclude=./dev",
            "--exclude=./proc",
            "--exclude=./sys",
            ".",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as tar:
            done = self.run("import", "--quiet", "-", name, patience=5 * MINUTES, stdin=tar.stdout)
        if done.returncode or tar.returncode:
            raise CannotRun(f"{self.name}: {done.stderr.strip()}")

    def try_out(self, image: str) -> None:
        """Raises CannotRun."""
        done = self.run(
            "run", "--rm", "--network", "none", "--read-only", "--user", "10001:10001", image, "true"
        )
        if done.returncode:
            raise CannotRun(f"{self.name}: {done.stderr.strip()}")

    def close(self) -> None:
        """Gives back what it has: gigabytes, and what it has mounted."""
        for what in (("pod", "rm"), ("rm",), ("rmi",)):
            self.run(*what, "--force", "--all", patience=3 * MINUTES)
        mounted = self._store / "graph" / self._driver
        while os.path.ismount(mounted):  # once for each of us that tried
            subprocess.run(["umount", str(mounted)], check=True)


def bootstrap(root: Path) -> None:
    """Debian with Python, such as it is called in the images that have it."""
    command = [need("debootstrap"), "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root), MIRROR]
    done = subprocess.run(command, capture_output=True, text=True, timeout=15 * MINUTES, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (root / "usr/bin/python").symlink_to("python3")


def find_podman(directory: Path) -> Podman:
    """One that works here, and knows BASE. Raises CannotRun."""
    if os.geteuid() != 0:
        raise CannotRun("debootstrap takes root")
    known = os.environ.get("LB_BASE_ROOT")  # made before, by the same command
    root = Path(known) if known else directory / "root"
    if not known:
        bootstrap(root)
    reasons = []
    for driver in DRIVERS:
        adopted = False
        for runtime in RUNTIMES:
            podman = Podman(directory, driver, runtime)
            try:
                if not adopted:
                    podman.adopt(root, BASE)
                    adopted = True
                podman.try_out(BASE)
            except CannotRun as error:
                reasons.append(str(error))
                if not adopted:
                    break
            else:
                return podman
    raise CannotRun("; ".join(reasons))


def _pip_settings() -> Mapping[str, str]:
    """How pip is configured here, by files and, which counts more, by the environment."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = sorted(done.stdout.splitlines(), key=lambda line: line.startswith(":env:"))
    pairs = [line.partition("=") for line in lines]
    return {name.rpartition(".")[2]: value.strip("'\"") for name, _, value in pairs}


def pip_options(directory: Path) -> list[str]:
    """What lets pip in a build find packages where pip on this machine does: its configuration, and the files
    that it names, are there while it is built, and not in the image."""
    settings = _pip_settings()
    config = directory / "pip.conf"
    lines = [f"{name} = {value}" for name, value in settings.items()]
    config.write_text("\n".join(["[global]", *lines, ""]))
    options = ["--volume", f"{config}:/etc/pip.conf:ro"]
    for value in settings.values():
        for word in value.split():
            # The pages of an index that is a folder lead to files beside it.
            path = Path(word) if word.startswith("/") else Path(word.removeprefix("file://")).parent
            if path.is_absolute() and path.exists():
                options += ["--volume", f"{path}:{path}:ro"]
    return options
