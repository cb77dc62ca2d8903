"""What the fuzzer begins with: the cases of the conformance tests and the example configurations."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFORMANCE = ROOT / "tests" / "conformance"
LONGEST = 2048  # bytes: of more the fuzzer makes little


def seeds(target: str) -> Iterator[bytes]:
    """Inputs for a target, besides those of its own folder in the corpus."""
    if target == "requests":
        yield from _cases("requests.json")
    elif target == "responses":
        yield from _cases("responses.json")
    elif target == "chunked":
        for name in ("requests.json", "responses.json"):
            for raw in _cases(name):
                head, _, body = raw.partition(b"\r\n\r\n")
                if b"chunked" in head.lower() and body:
                    yield body
    elif target == "config":
        yield from (path.read_bytes() for path in sorted((ROOT / "config").glob("*.yaml")))
    elif target == "scenario":
        yield from (path.read_bytes() for path in sorted((ROOT / "config" / "scenarios").glob("*.yaml")))


def _cases(name: str) -> Iterator[bytes]:
    for case in json.loads((CONFORMANCE / name).read_text())["cases"]:
        raw = base64.b64decode(case["raw_b64"])
        if len(raw) <= LONGEST:
            yield raw
