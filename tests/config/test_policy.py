"""Policies and their options are checked against the class itself."""

import sys
from textwrap import dedent

import pytest

from lb.balance import policies
from lb.config import ConfigError, load

POLICY = """
    from __future__ import annotations
    from lb.balance import Balancer

    class Tuned(Balancer):
        def __init__(self, clock, rng, choices: int = 2, decay: float = 10.0, *, hard: bool = False,
                     key: str | None = None, table=None):
            super().__init__(clock, rng)

    class Needs(Balancer):
        def __init__(self, clock, rng, key: str):
            super().__init__(clock, rng)

    class Any(Balancer):
        def __init__(self, clock, rng, **options):
            super().__init__(clock, rng)

    class NoPolicy:
        pass
"""


@pytest.fixture
def balancer(tmp_path):
    """Loads a pool with this balancer from a directory in which `own_policy_…` lies."""
    module = f"own_policy_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{module}.py").write_text(dedent(POLICY))
    (tmp_path / "broken_policy.py").write_text("1 / 0\n")
    (tmp_path / "leaving_policy.py").write_text("raise SystemExit(3)\n")
    path = tmp_path / "lb.yaml"

    def balancer_of(written):
        path.write_text(
            f"pools:\n  p:\n    backends: ['h:1']\n    balancer: {written.replace('OWN', module)}\n"
        )
        try:
            return load(path).pools["p"].balancer
        except ConfigError as error:
            return [str(each).removeprefix(f"{path}:").replace(module, "OWN") for each in error.problems]

    yield balancer_of
    sys.modules.pop(module, None)


@pytest.mark.parametrize("name", list(policies()))
def test_every_registered_policy_is_known(name, balancer):
    assert balancer(name).policy == name
    assert balancer(f"{{policy: {name}}}").options == {}


def test_a_policy_of_ones_own_beside_the_file(balancer, tmp_path):
    found = balancer("OWN:Tuned")
    assert found.policy.endswith(":Tuned")
    assert found.options == {}
    assert str(tmp_path) not in sys.path


def test_options_get_the_types_of_their_parameters(balancer):
    found = balancer(
        "{policy: 'OWN:Tuned', choices: 3, decay: 1, hard: on, key: 010, table: {a: [1, on, x]}}"
    )
    assert found.options == {
        "choices": 3,
        "decay": 1.0,
        "hard": True,
        "key": "010",
        "table": {"a": [1, True, "x"]},
    }
    assert type(found.options["decay"]) is float


def test_a_float_can_be_written_as_a_duration(balancer):
    assert balancer("{policy: 'OWN:Tuned', decay: 250ms}").options == {"decay": 0.25}


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (
            "{policy: 'OWN:Tuned', choice: 3}",
            "choice: OWN:Tuned has no option 'choice' (did you mean choices?)",
        ),
        (
            "{policy: 'OWN:Tuned', x: 3}",
            "x: OWN:Tuned has no option 'x' (it has: choices, decay, hard, key, table)",
        ),
        ("{policy: 'OWN:Tuned', choices: many}", "choices: must be a whole number, not 'many'"),
        ("{policy: 'OWN:Tuned', choices: 2.5}", "choices: must be a whole number, not 2.5"),
        ("{policy: 'OWN:Tuned', decay: slow}", "decay: must be a number or a duration, not 'slow'"),
        ("{policy: 'OWN:Tuned', decay: 5 s}", "decay: must be a duration such as 250ms, 5s or 1m, not '5 s'"),
        ("{policy: 'OWN:Tuned', hard: 1}", "hard: must be true or false, not 1"),
        ("{policy: 'OWN:Tuned', key: [a]}", "key: must be text, not a list"),
        ("{policy: 'OWN:Needs'}", "policy: OWN:Needs needs the option 'key'"),
        ("OWN:Needs", "balancer: OWN:Needs needs the option 'key'"),
        ("{policy: random, choices: 2}", "choices: random has no options, so 'choices' means nothing to it"),
        ("{policy: p2c, choices: 2}", "choices: p2c has no option 'choices' (it has: replacement)"),
        ("{policy: least_request, choices: -1}", "choices: must be at least 0, not -1"),
        ("{policy: peak_ewma, decay: 0s}", "decay: must be more than 0, not 0.0"),
        ("{policy: ring_hash, key: ip}", "key: must be header:NAME, cookie:NAME, client, path or query:NAME"),
        ("{policy: maglev, key: 'cookie:'}", "key: must have the name of a cookie behind cookie:, not ''"),
        ("{policy: maglev, vnodes: 3}", "vnodes: maglev has no option 'vnodes' (it has: key, bounded_load)"),
        ("{policy: ring_hash, vnodes: 0}", "vnodes: must be at least 1, not 0"),
        ("{policy: rendezvous, bounded_load: 0.9}", "bounded_load: must be at least 1, not 0.9"),
        ("OWN:Tune", "balancer: can't use OWN:Tune: it has no class Tune (it has: "),
        (
            "OWN:NoPolicy",
            "balancer: can't use OWN:NoPolicy: OWN:NoPolicy is not a subclass of lb.balance.Balancer",
        ),
        ("no_such:Policy", "balancer: can't use no_such:Policy: No module named 'no_such'"),
        (
            "broken_policy:P",
            "balancer: importing broken_policy:P failed: ZeroDivisionError: division by zero",
        ),
        ("leaving_policy:P", "balancer: importing leaving_policy:P failed: SystemExit: 3"),
        ("zzz", "balancer: there is no policy 'zzz' (there are: "),
    ],
)
def test_mistakes(written, problem, balancer):
    found = balancer(written)
    assert len(found) == 1
    assert problem in found[0]
    assert found[0].startswith("4:")


def test_the_place_of_a_wrong_option(balancer):
    assert balancer("{policy: p2c, choices: 2}")[0].startswith("4:29: pools.p.balancer.choices: ")
    assert balancer("{policy: maglev, key: ip}")[0].startswith("4:37: pools.p.balancer.key: ")
    assert balancer("{policy: 'OWN:Tuned', \n      choices: x}")[0].startswith(
        "5:16: pools.p.balancer.choices: "
    )


def test_a_policy_that_takes_any_option(balancer):
    assert balancer("{policy: 'OWN:Any', a: 1, b: off}").options == {"a": 1, "b": False}


# --- from the environment ---


def test_an_option_may_come_from_the_environment(balancer, monkeypatch):
    monkeypatch.setenv("PEER", "3")
    monkeypatch.setenv("DECAY", "250ms")
    found = balancer("{policy: aperture, peer: {env: PEER}, peers: 5}")
    assert found.options == {"peer": 3, "peers": 5}
    assert balancer("{policy: peak_ewma, decay: {env: DECAY}}").options == {"decay": 0.25}


def test_what_it_says_is_checked_like_anything_else(balancer, monkeypatch):
    monkeypatch.setenv("PEER", "three")
    monkeypatch.delenv("NOWHERE", raising=False)
    [wrong] = balancer("{policy: aperture, peer: {env: PEER}}")
    assert "must be a whole number, not 'three'" in wrong
    [missing] = balancer("{policy: aperture, peer: {env: NOWHERE}}")
    assert missing.endswith("p.balancer.peer: the environment variable NOWHERE isn't set")
