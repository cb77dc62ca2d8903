"""What clients send: read as Consul reads it, or refused in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.control.registry.model import CRITICAL, PASSING, Check, Instance, State, from_record, to_record
from lb.control.registry.requests import Wrong, check_registration, duration, registration, report


def read(data: Any) -> tuple[Instance, dict[str, State]]:
    return registration(json.dumps(data).encode(), "192.0.2.7")


def test_the_least_there_is() -> None:
    found, states = read({"Name": "greeter"})
    assert found == Instance("greeter", "greeter", "192.0.2.7", 0)
    assert states == {}


@pytest.mark.parametrize("spell", [str, str.lower, str.upper], ids=["as it is", "lower", "upper"])
def test_keys_come_in_any_case(spell: Any) -> None:
    data = {"ID": "a", "Name": "greeter", "Address": "10.0.0.1", "Port": 80, "Tags": ["blue"],
            "Meta": {"zone": "north"}, "Weights": {"Passing": 5, "Warning": 2},
            "Check": {"TTL": "15s", "Status": "passing", "Notes": "n",
                      "DeregisterCriticalServiceAfter": "1m30s"}}  # fmt: skip

    def spelt(value: Any, meta: bool = False) -> Any:
        if not isinstance(value, dict):
            return value
        return {key if meta else spell(key): spelt(each, key == "Meta") for key, each in value.items()}

    found, states = read(spelt(data))
    assert found.checks == (Check("service:a", "Service 'greeter' check", 15.0, "n", 90.0),)
    assert (found.id, found.weights, found.meta, found.tags) == ("a", (5, 2), {"zone": "north"}, ("blue",))
    assert states == {"service:a": State(PASSING)}


def test_a_check_is_critical_until_it_has_passed() -> None:
    _, states = read({"Name": "greeter", "Checks": [{"TTL": "1s"}, {"TTL": "2s", "CheckID": "mine"}]})
    assert states == {"service:greeter:1": State(CRITICAL), "mine": State(CRITICAL)}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "the body must be a JSON object"),
        ({}, "Name: is missing"),
        ({"Name": 1}, "Name: must be 1 to 128 visible ASCII characters"),
        ({"Name": "a b"}, "Name: must be"),
        ({"Name": "a\r\nX: y"}, "Name: must be"),
        ({"Name": "x" * 129}, "Name: must be"),
        ({"Name": "a", "Port": "80"}, "Port: must be a whole number from 0 to 65535"),
        ({"Name": "a", "Port": True}, "Port: must be"),
        ({"Name": "a", "Port": 65536}, "Port: must be"),
        ({"Name": "a", "Address": "10.0.0.1:80"}, "Address: must be an IP address or a host name"),
        ({"Name": "a", "Address": "a/b"}, "Address: must be"),
        ({"Name": "a", "Tags": "blue"}, "Tags: must be a list"),
        ({"Name": "a", "Tags": [1]}, "Tags: must be a list"),
        ({"Name": "a", "Tags": ["x" * 513]}, "Tags: each must be at most 512"),
        ({"Name": "a", "Meta": {"k": 1}}, "Meta: must be pairs"),
        ({"Name": "a", "Meta": {str(n): "" for n in range(65)}}, "Meta: must be at most 64"),
        ({"Name": "a", "Weights": {"Passing": -1}}, "Weights.Passing: must be"),
        ({"Name": "a", "EnableTagOverride": "yes"}, "EnableTagOverride: must be true or false"),
        ({"Name": "a", "Check": {"HTTP": "http://x/"}}, "Check.http: only TTL checks are known here"),
        ({"Name": "a", "Check": {"Name": "alive"}}, "Check.TTL: is missing"),
        ({"Name": "a", "Check": {"TTL": "-5s"}}, "Check.TTL: must be a duration"),
        ({"Name": "a", "name": "b"}, "Name and name are the same key"),
        ({"Name": "a", "Check": {"TTL": "1s", "CheckID": "a", "check_id": "b"}}, "are the same key"),
        ({"Name": "a", "Kind": "connect-proxy"}, "Kind: proxies and gateways"),
        ({"Name": "a", "Address": "0.0.0.0"}, "Address: 0.0.0.0 is where a server listens"),
        ({"Name": "a", "Address": "0:0::0"}, "Address: :: is where a server listens"),
        ({"Name": "a", "TaggedAddresses": ["lan"]}, "TaggedAddresses: must be an object"),
        ({"Name": "a", "TaggedAddresses": {"lan": "10.0.0.1"}}, "TaggedAddresses: must be pairs"),
        ({"Name": "a", "TaggedAddresses": {"lan": {}}}, "TaggedAddresses.lan.Address: must be an IP address"),
        (
            {"Name": "a", "TaggedAddresses": {"lan": {"Address": "h", "Port": -1}}},
            "TaggedAddresses.lan.Port: must be a whole number",
        ),
        ({"Name": "a", "Check": {"TTL": "soon"}}, 'Check.TTL: must be a duration such as "15s"'),
        ({"Name": "a", "Check": {"TTL": "0s"}}, "Check.TTL: must be longer than 0"),
        ({"Name": "a", "Check": {"TTL": "1s", "Status": "fine"}}, "Check.Status: must be"),
        ({"Name": "a", "Checks": [{"TTL": "1s", "CheckID": "c"}] * 2}, "Check.CheckID: c is here twice"),
    ],
)
def test_what_is_wrong_is_said(data: Any, words: str) -> None:
    with pytest.raises(Wrong) as caught:
        read(data)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("15s", 15), ("1m30s", 90), ("250ms", 0.25), ("1h", 3600), ("1.5s", 1.5), (10_000_000_000, 10)],
)
def test_durations_are_written_as_in_go(written: Any, seconds: float) -> None:
    assert duration(written, "x") == pytest.approx(seconds)


def test_a_check_of_its_own_needs_its_instance() -> None:
    assert check_registration(b'{"Name": "alive", "ServiceID": "a", "TTL": "3s"}') == (
        "a",
        Check("alive", "alive", 3.0),
        CRITICAL,
    )
    with pytest.raises(Wrong, match="ServiceID: is missing"):
        check_registration(b'{"Name": "alive", "TTL": "3s"}')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
KEYS = st.sampled_from(
    ["Name", "ID", "Port", "Address", "Tags", "Meta", "Check", "Checks", "Weights", "TTL", "Status", "Output"]
)


@given(st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON)) | JSON)
def test_anything_is_taken_or_refused(data: Any) -> None:
    body = json.dumps(data).encode()
    for parse in (lambda: registration(body, "::1"), lambda: check_registration(body), lambda: report(body)):
        try:
            parse()
        except Wrong:
            pass


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"Name": "a", "Name": "b"}', "Name: is here twice"),
        (b'{"Name": "a", "Meta": {"k": "1", "k": "2"}}', "k: is here twice"),
        (b'{"Name": "a", "Check": {"TTL": "1s", "TTL": "2s"}}', "TTL: is here twice"),
        ('{"Name": "a"}'.encode("utf-16"), "the body is not JSON"),
        (b'\xef\xbb\xbf{"Name": "a"}', "the body is not JSON"),
        (b'{"Name": "\xff"}', "the body is not JSON"),
        (b'{"Name": "a", "Port": ' + b"9" * 5000 + b"}", "the body is not JSON"),
        (b'{"Name":' * 50_000, "the body is not JSON"),
    ],
)
def test_json_that_could_be_taken_for_something_else(body: bytes, words: str) -> None:
    with pytest.raises(Wrong, match=words):
        registration(body, "::1")


def test_what_others_leave_out_or_say_with_nothing() -> None:
    registered, states = registration(
        b'{"Name": "a", "Check": {}, "Meta": {"k": null}, "Kind": "",'
        b' "tagged_addresses": {"lan": {"address": "Host.Example", "port": 8}}}',
        "::1",
    )
    assert (registered.address, dict(registered.meta), registered.checks, states) == (
        "::1",
        {"k": ""},
        (),
        {},
    )
    assert registered.tagged_addresses == {"lan": ("host.example", 8)}
    assert from_record(json.loads(json.dumps(to_record(registered)))) == registered


@given(st.binary())
def test_bytes_that_are_no_json_are_refused(body: bytes) -> None:
    try:
        report(body)
    except Wrong:
        pass
