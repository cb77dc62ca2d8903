"""The table of failures is complete and in order."""

import re

import pytest

from lb.core import failure
from lb.core.failure import (
    BACKEND,
    BAD_RESPONSE,
    BALANCER,
    CLIENT,
    FAILURES,
    IDEMPOTENT,
    NEVER,
    RESPONSE_CUT,
    UNSENT,
    Failure,
)

every_failure = pytest.mark.parametrize("each", FAILURES.values(), ids=list(FAILURES))


def test_no_two_have_one_name() -> None:
    defined = [value for value in vars(failure).values() if isinstance(value, Failure)]
    assert len({each.name for each in defined}) == len(defined) == len(FAILURES) > 20


@every_failure
def test_names_fit_a_label_and_a_log(each: Failure) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", each.name)
    assert each.name in repr(each)


@every_failure
def test_the_message_is_a_sentence(each: Failure) -> None:
    assert re.fullmatch(r"[A-Z].*\.", each.message)


@every_failure
def test_the_status_says_whose_fault_it_is(each: Failure) -> None:
    statuses = {CLIENT: range(400, 600), BACKEND: (502, 504), BALANCER: (500, 503, 504, 508)}
    assert each.status in statuses[each.fault]
    if each.fault == CLIENT and each.status >= 500:
        assert each.status in (501, 505), "only what we can't do at all is a 5xx by the client's fault"


@every_failure
def test_only_a_backends_failure_may_be_retried(each: Failure) -> None:
    assert each.retry in (NEVER, IDEMPOTENT, UNSENT)
    if each.retry != NEVER:
        assert each.fault == BACKEND


def test_what_reached_no_backend_may_go_elsewhere_with_any_method() -> None:
    assert {name for name, each in FAILURES.items() if each.retry == UNSENT} == {
        "connect_failed",
        "connect_timeout",
        "tls_failed",
    }


def test_garbage_in_place_of_an_answer_may_be_hidden_where_twice_is_as_good_as_once() -> None:
    assert BAD_RESPONSE.retry == IDEMPOTENT
    assert RESPONSE_CUT.retry == NEVER  # the client has seen its beginning
