"""Requests that nobody has thought of: whatever passes the balancer has to please the strict parser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conformance.drawn import bounded, mutations, requests
from tests.conformance.recorder import RecordingBackend, ask
from tests.conformance.strict import parse_response
from tests.e2e.process import until
from tests.e2e.scene import ONE_BACKEND, Stage, set_up

EXAMPLES = int(os.environ.get("LB_EXAMPLES", "1000"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, RecordingBackend]]:
    directory: Path = tmp_path_factory.mktemp("balancer")
    with set_up(directory, ONE_BACKEND) as stage:
        backend = RecordingBackend(stage.sockets["a"])
        backend.start()
        try:
            yield stage, backend
        finally:
            backend.stop()


@bounded(EXAMPLES)
@given(data=st.lists(requests().flatmap(mutations), min_size=1, max_size=3).map(b"".join))
@example(data=b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n" * 3)
def test_nothing_that_passes_breaks_a_rule(pair: tuple[Stage, RecordingBackend], data: bytes) -> None:
    stage, backend = pair
    before = backend.requests
    answered = ask(stage.balancer, data)
    while answered:
        answer = parse_response(answered, closed="fin")
        assert answer.complete, answered
        assert not answer.violations, answered
        answered = answer.rest
    assert not backend.violations, backend.violations
    assert backend.requests - before <= data.count(b"HTTP/1."), "more requests arrived than were sent"


def test_most_of_them_did_pass(pair: tuple[Stage, RecordingBackend]) -> None:
    """Else the test above would say nothing. And the balancer holds nothing of all that."""
    stage, backend = pair
    assert backend.requests > EXAMPLES / 4
    until(lambda: not stage.balancer.metric("lb_backend_in_flight"), "the end of all requests", 5)
