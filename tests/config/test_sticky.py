"""Sticky sessions as they are written: attributes, mistakes, and where the secret comes from."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from lb.config import loads
from lb.config import sticky as module
from lb.config.sticky import OWN_SECRET, Sticky
from tests.config.helpers import problems


def sticky_of(written: str) -> Sticky:
    pool = loads(f"pools: {{p: {{backends: ['h:1'], sticky: {{cookie: lb{written}}}}}}}").pools["p"]
    assert pool.sticky is not None
    return pool.sticky


@pytest.mark.parametrize(
    ("written", "attributes"),
    [
        ("", "; Path=/; HttpOnly; SameSite=Lax"),
        (", path: /shop", "; Path=/shop; HttpOnly; SameSite=Lax"),
        (", max_age: 90m, http_only: off", "; Path=/; Max-Age=5400; SameSite=Lax"),
        (", secure: on, same_site: none", "; Path=/; Secure; HttpOnly; SameSite=None"),
        (", same_site: strict, max_age: off", "; Path=/; HttpOnly; SameSite=Strict"),
    ],
)
def test_attributes(written: str, attributes: str) -> None:
    assert sticky_of(written).attributes == attributes


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{}", "needs the name of a cookie, as in cookie: lb"),
        ("{cookie: 'a b'}", "must be the name of a cookie, without spaces, not 'a b'"),
        ("{cookie: lb, path: shop}", "must be a path that starts with /"),
        ("{cookie: lb, path: '/a;b'}", "must be a path that starts with /"),
        ("{cookie: lb, same_site: none}", "none needs secure: true"),
        ("{cookie: lb, secret: hunter2}", "must not stand in this file itself"),
        ("{cookie: lb, secret: {}}", "needs one of the two"),
        ("{cookie: lb, max_age: 0s}", "must be at least 1s"),
        ("lb", "must be a mapping or off"),
    ],
)
def test_mistakes(written: str, message: str) -> None:
    [problem] = problems(f"pools: {{p: {{backends: ['h:1'], sticky: {written}}}}}")
    assert message in problem
    assert "hunter2" not in problem


def test_a_secret_from_a_file_and_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("of-a-file\n")
    monkeypatch.setenv("SHOP", "of-the-environment")
    assert sticky_of(f", secret: {{file: {tmp_path}/secret}}").read_secret() == b"of-a-file"
    assert sticky_of(", secret: {env: SHOP}").read_secret() == b"of-the-environment"
    with pytest.raises(
        ValueError, match="the environment variable NOWHERE for the secret of sticky sessions"
    ):
        sticky_of(", secret: {env: NOWHERE}").read_secret()


def test_without_one_it_is_made_of_the_machines_and_does_not_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = tmp_path / "machine-id"
    monkeypatch.setattr(module, "MACHINE_ID", machine)
    machine.write_text("0123456789abcdef0123456789abcdef\n")
    first = sticky_of("").read_secret()
    assert sticky_of("").read_secret() == first
    assert b"0123456789abcdef" not in first
    machine.write_text("another\n")
    assert sticky_of("").read_secret() != first


@pytest.mark.parametrize("there", [False, True])
def test_a_machine_without_an_id_gets_one_for_this_process_and_its_children(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine = tmp_path / "machine-id"
    if there:  # as in an image that was built before it ran anywhere
        machine.write_text("")
    monkeypatch.setattr(module, "MACHINE_ID", machine)
    monkeypatch.setenv(OWN_SECRET, "")  # so that it is put back in the end
    monkeypatch.delenv(OWN_SECRET)
    with caplog.at_level(logging.WARNING, "lb"):
        first = sticky_of("").read_secret()
        assert sticky_of("").read_secret() == first
    assert len(first) == 64
    [record] = caplog.records
    assert "hold until the next restart" in record.getMessage()
