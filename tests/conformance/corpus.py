"""The corpora: raw requests and raw responses, with what a strict proxy does with them.

Written from RFC 9110, RFC 9112 and public bug reports; `rfc` and `seen_in` of a case say which.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

Case = dict[str, Any]
PASS, LENIENT, FAIL = "PASS", "LENIENT", "FAIL"
Verdict = tuple[str, str]  # and why


def cases(name: str) -> list[Any]:
    """The cases of a file as parameters of a test, each under its name."""
    found: list[Case] = json.loads((Path(__file__).parent / name).read_text())["cases"]
    return [pytest.param(case, id=case["name"]) for case in found]


def raw(case: Case) -> bytes:
    return base64.b64decode(case["raw_b64"])


def cut(case: Case, data: bytes) -> list[bytes]:
    """The data in the pieces that the case wants it to be sent in."""
    pieces, at = [], 0
    for size in case["segments"]:
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]] if data[at:] else pieces
