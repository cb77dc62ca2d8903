"""The judgement over probes, told as stories: + is a good probe, - a bad one."""

import pytest

from lb.core.health import Health

UP, DOWN, UNKNOWN = True, False, None


@pytest.mark.parametrize(
    ("rise", "fall", "probes", "judgements"),
    [
        pytest.param(2, 3, "", [], id="not judged before the first probe"),
        pytest.param(2, 3, "+", [UP], id="the first good probe brings it up at once"),
        pytest.param(2, 3, "-", [DOWN], id="the first bad probe takes it down at once"),
        pytest.param(2, 3, "+---", [UP, UP, UP, DOWN], id="then it falls after three"),
        pytest.param(2, 3, "-++", [DOWN, DOWN, UP], id="and rises after two"),
        pytest.param(2, 3, "+--+--+---", [UP] * 9 + [DOWN], id="a good one between starts the count anew"),
        pytest.param(3, 1, "-++-++-+++", [DOWN] * 9 + [UP], id="a bad one between does too"),
        pytest.param(1, 1, "+-+-", [UP, DOWN, UP, DOWN], id="with rise and fall 1 every probe counts"),
        pytest.param(2, 3, "+---++", [UP, UP, UP, DOWN, DOWN, UP], id="down and up again"),
        pytest.param(2, 2, "++++--", [UP, UP, UP, UP, UP, DOWN], id="good ones are not saved up"),
    ],
)
def test_judgements(rise: int, fall: int, probes: str, judgements: list[bool]) -> None:
    health = Health(rise, fall)
    before = health.up
    assert before is UNKNOWN
    for number, (probe, expected) in enumerate(zip(probes, judgements, strict=True)):
        changed = health.probed(probe == "+", f"probe {number}")
        assert health.up is expected, f"after probe {number} of {probes}"
        assert changed is (before is not expected)
        assert health.reason == f"probe {number}"
        before = expected


def test_a_backend_that_was_never_probed_says_so() -> None:
    assert Health(1, 1).reason == "not probed yet"
