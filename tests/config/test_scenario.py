"""Every mistake in a scenario is told, at its place."""

from __future__ import annotations

import pytest

from lb.config import ConfigError
from lb.config.scenario import scenario_of

WRONG = """about: x
duration: 60
warm_up: 70s
arrivals: {rat: 3}
backends:
  - {latency: {lognormal: {median: 20ms}}, slot: 3}
  - {id: a, latency: {exponental: 20ms}, slow: [{form: 10s, times: 3}], pauses: {every: 3s, fro: 3s}}
  - {id: a, latency: -3, queue: 5}
pool: {retries: {attempt: 1}}
policies: [p3c]
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        scenario_of(text, "s.yaml")
    return str(caught.value).splitlines()


def test_all_at_once_with_their_places() -> None:
    found = problems(WRONG)
    assert [line.split(": ")[0].split(":")[1] for line in found] == [*"24667778889", "10"], found
    text = "\n".join(found)
    for words in ("(did you mean 60s?)", "(did you mean rate?)", "(did you mean slots?)"):
        assert words in text
    for words in ("(did you mean exponential?)", "(did you mean attempts?)", "(did you mean p2c?)"):
        assert words in text
    assert "means nothing without slots" in text
    assert "backends[1] has it too" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "s.yaml:1:1: the file is empty: it needs backends"),
        ("[]", "s.yaml:1:1: the file must be a mapping with keys such as backends, not a list"),
        (
            "duration: 1s\nbackends: [{latency: 1ms}]\n",
            "s.yaml:1:1: needs one of the two: arrivals, as in arrivals: {rate: 1000}, or clients",
        ),
        (
            "duration: 1s\nclients: 3\nbackends: [{latency: {constant: 1ms, exponential: 2ms}}]\n",
            "s.yaml:3:13: backends[0].latency: needs exactly one of constant, exponential, normal, "
            "lognormal, pareto, sum, mix, histogram",
        ),
        (
            "duration: 1s\nclients: 3\nwarm_up: 1s\nbackends: [{latency: 1ms}]\n",
            "s.yaml:3:10: warm_up: must be less than the duration, or nothing is counted",
        ),
        (
            "duration: 1s\nclients: 3\nbackends: [{latency: 1ms, slow: [{from: 1s}]}]\n",
            "s.yaml:3:34: backends[0].slow[0]: needs one of the two: times, as in times: 5, or a latency",
        ),
        (
            "duration: 1s\nclients: 3\nbackends: [{latency: 1ms}]\nkeys: {count: 3, list: [a]}\n",
            "s.yaml:4:1: keys: needs one of the two: count, as in count: 1000, or a list",
        ),
        (
            "duration: 1s\nclients: 3\nbackends: [{latency: 1ms}]\nkeys: {list: [a, {key: b}, a]}\n",
            "s.yaml:4:28: keys.list[2]: the key 'a' is here twice: list[0] is it too",
        ),
        (
            "duration: 1s\nclients: 3\nbackends: [{latency: 1ms}]\nkeys: {cuont: 3}\n",
            "s.yaml:4:8: keys.cuont: unknown key (did you mean count?)",
        ),
        (
            "duration: 1s\nclients: 3\nbackends: [{latency: {histogram: [{upto: 2ms, count: 1}, "
            "{upto: 1ms, count: 1}]}}]\n",
            "s.yaml:3:65: backends[0].latency.histogram[1].upto: must be more than the bound before",
        ),
        (
            "duration: 1s\nclients: 3\nbackends: [{latency: {histogram: [{upto: 2ms, count: 0}]}}]\n",
            "s.yaml:3:34: backends[0].latency.histogram: needs a count that isn't 0",
        ),
        (
            "duration: 1s\nclients: 3\nbackends: [{latency: 1ms}]\npool: {sticky: on}\n",
            "s.yaml:4:16: pool.sticky: means nothing without keys: no client comes twice",
        ),
        (
            "duration: 1s\nclients: 3\nworkers: {count: 2, zones: [a, b]}\n"
            "backends: [{latency: 1ms, zone: a}]\n",
            "s.yaml:3:32: workers.zones[1]: no backend is in the zone 'b'",
        ),
        (
            "duration: 1s\narrivals: {rate: 0}\nbackends: [{latency: 1ms}]\n",
            "s.yaml:2:18: arrivals.rate: must be a number above 0, up to 1e+07, not 0",
        ),
    ],
)
def test_in_plain_words(text: str, said: str) -> None:
    assert problems(text) == [said]


def test_the_rules_of_the_pool_are_off_if_left_out() -> None:
    found = scenario_of("duration: 1s\nclients: 3\nbackends: [{latency: 1ms}]\n").pool
    assert (found.health_check, found.outlier_detection, found.retries, found.slow_start) == (None,) * 4
