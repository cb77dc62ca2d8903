"""Finding a policy by its name."""

from collections.abc import Sequence

import pytest

from lb.balance import Balancer, policies, policy_class
from lb.core.backend import Backend
from tests.core.fleet import made_pool, served, specs


class Last(Balancer):
    """A policy of the user's own."""

    reason = "the last"

    def pick(self, request: object, backends: Sequence[Backend]) -> Backend:
        return backends[-1]


class NoPolicy:
    """Something else."""


def test_registered_ones_go_by_their_names() -> None:
    for name, policy in policies().items():
        assert policy_class(name) is policy


def test_ones_own_goes_by_module_and_class() -> None:
    policy = policy_class(f"{__name__}:Last")
    assert policy is Last
    assert served(made_pool(specs(a=1, b=1), policy), 2) == ["b", "b"]


def test_ones_own_is_not_registered_by_being_derived() -> None:
    assert Last not in policies().values()


def test_changing_the_answer_changes_nothing() -> None:
    policies().clear()
    assert "p2c" in policies()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("p2d", KeyError),
        ("", KeyError),
        ("P2C", KeyError),
        ("no_such_module:Policy", ImportError),
        (f"{__name__}.deeper:Policy", ImportError),
        (f"{__name__}:Lost", AttributeError),
        (f"{__name__}:", AttributeError),
        (f"{__name__}:NoPolicy", TypeError),
        (f"{__name__}:specs", TypeError),
        ("lb.core.backend:ACTIVE", TypeError),
    ],
)
def test_wrong_names(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        policy_class(name)
