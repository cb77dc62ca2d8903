"""What clients send, read as Consul reads it: keys in any case, durations as Go writes them.

What is wrong is told in words, and nothing has changed then. Keys that mean nothing here are passed over,
since clients of many versions send a lot of them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from lb.control.registry.model import CRITICAL, STATUSES, Check, Instance, State

NAME_AT_MOST = 128  # characters
TEXT_AT_MOST = 512  # characters of a tag, a value of Meta or a note
OUTPUT_AT_MOST = 4096  # characters that are kept of what a check says, as in Consul
MANY = 64  # tags, pairs of Meta or checks of one instance, at most

_name = re.compile(r"[!-~]+").fullmatch
_host = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?").fullmatch
_part = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_ONLY_TTL = ("http", "tcp", "udp", "grpc", "script", "args", "dockercontainerid", "aliasservice", "aliasnode",
             "h2ping", "osservice")  # fmt: skip
LONGEST = 366 * 86400.0  # seconds


class Wrong(ValueError):
    """A request that can't be taken, in words for whoever sent it."""


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises Wrong."""
    try:
        found = json.loads(body.decode(), object_pairs_hook=_no_twins)
    except Wrong:
        raise
    except (ValueError, RecursionError) as error:
        raise Wrong(f"the body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Wrong("the body must be a JSON object")
    return found


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise Wrong(f"{next(name for name in names if names.count(name) > 1)[:NAME_AT_MOST]}: is here twice")
    return found


def duration(value: Any, what: str, least: float = 1e-9) -> float:
    """Seconds, of `15s`, `1m30s` or a number of nanoseconds, as Go has them. Raises Wrong."""
    if isinstance(value, int) and not isinstance(value, bool):
        seconds = value / 1e9
    elif isinstance(value, str):
        parts = _part.findall(value)
        if not parts or "".join(number + unit for number, unit in parts) != value:
            raise Wrong(f'{what}: must be a duration such as "15s" or "1m30s"')
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    else:
        raise Wrong(f'{what}: must be a duration such as "15s" or "1m30s"')
    if not least <= seconds <= LONGEST:
        raise Wrong(f"{what}: must be longer than 0, and at most a year")
    return seconds


class _Keys:
    """A JSON object whose keys are found in any case, with or without underscores."""

    def __init__(self, data: Mapping[str, Any], what: str) -> None:
        self._data = {key.replace("_", "").lower(): value for key, value in data.items()}
        if len(self._data) < len(data):
            written = Counter(key.replace("_", "").lower() for key in data)
            twice = [key for key in data if written[key.replace("_", "").lower()] > 1]
            raise Wrong(f"{what}{twice[0][:NAME_AT_MOST]} and {twice[1][:NAME_AT_MOST]} are the same key")
        self._what = what

    def get(self, name: str) -> Any:
        return self._data.get(name.lower())

    def label(self, name: str) -> str:
        return f"{self._what}{name}"

    def text(self, name: str, default: str = "") -> str:
        value = self.get(name)
        if value is None or value == "":
            return default
        if not isinstance(value, str) or len(value) > TEXT_AT_MOST:
            raise Wrong(f"{self.label(name)}: must be a text of at most {TEXT_AT_MOST} characters")
        return value

    def name(self, name: str, default: str = "") -> str:
        value = self.get(name)
        if value is None or value == "":
            return default
        if not isinstance(value, str) or not _name(value) or len(value) > NAME_AT_MOST:
            raise Wrong(
                f"{self.label(name)}: must be 1 to {NAME_AT_MOST} visible ASCII characters, without spaces"
            )
        return value

    def whole(self, name: str, least: int, most: int, default: int) -> int:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Wrong(f"{self.label(name)}: must be a whole number from {least} to {most}")
        return value

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise Wrong(f"{self.label(name)}: must be true or false")
        return bool(value)

    def items(self, name: str, kind: type) -> list[Any]:
        value = self.get(name)
        if value is None:
            return []
        if (
            not isinstance(value, list)
            or len(value) > MANY
            or not all(isinstance(each, kind) for each in value)
        ):
            raise Wrong(f"{self.label(name)}: must be a list of at most {MANY} {_PLURAL[kind]}")
        return value

    def mapping(self, name: str) -> dict[str, Any] | None:
        value = self.get(name)
        if value is not None and not isinstance(value, dict):
            raise Wrong(f"{self.label(name)}: must be an object")
        return value


_PLURAL: dict[type, str] = {str: "texts", dict: "objects"}


def registration(body: bytes, peer: str) -> tuple[Instance, dict[str, State]]:
    """Who registers, and the states of the checks that come with one. Raises Wrong.

    `peer` is where the request comes from: it is the address of an instance that gives none.
    """
    keys = _Keys(object_of(body), "")
    service = keys.name("Name")
    if not service:
        raise Wrong("Name: is missing; it is the name of the service")
    instance_id = keys.name("ID", service)
    if keys.text("Kind"):
        raise Wrong("Kind: proxies and gateways of a mesh aren't known here")
    written = keys.mapping("Check")
    several = keys.items("Checks", dict)
    if written:
        several = [written, *several]
    checks, states = [], {}
    for number, each in enumerate(several, 1):
        default = f"service:{instance_id}" + (f":{number}" if len(several) > 1 else "")
        check, status = _check(_Keys(each, "Check."), default, f"Service '{service}' check")
        if check.id in states:
            raise Wrong(f"Check.CheckID: {check.id} is here twice")
        checks.append(check)
        states[check.id] = State(status)
    instance = Instance(
        instance_id,
        service,
        _address(keys.text("Address", peer)),
        keys.whole("Port", 0, 65535, 0),
        tuple(_texts(keys.items("Tags", str), "Tags")),
        _meta(keys.mapping("Meta") or {}),
        _weights(keys.mapping("Weights")),
        tuple(checks),
        keys.flag("EnableTagOverride"),
        _tagged_addresses(keys.mapping("TaggedAddresses") or {}),
    )
    return instance, states


def check_registration(body: bytes) -> tuple[str, Check, str]:
    """The ID of the instance that gets another check, the check, and its status. Raises Wrong."""
    keys = _Keys(object_of(body), "")
    owner = keys.name("ServiceID")
    if not owner:
        raise Wrong("ServiceID: is missing: checks of a whole node aren't known here")
    if not keys.text("Name"):
        raise Wrong("Name: is missing")
    check, status = _check(keys, keys.name("ID") or keys.text("Name"), keys.text("Name"))
    return owner, check, status


def _check(keys: _Keys, default_id: str, default_name: str) -> tuple[Check, str]:
    for other in _ONLY_TTL:
        if keys.get(other):
            raise Wrong(
                f"{keys.label(other)}: only TTL checks are known here, which the instance passes itself; "
                "to have it probed, give the pool a health_check"
            )
    if keys.get("TTL") is None or keys.get("TTL") == "":
        raise Wrong(f"{keys.label('TTL')}: is missing")
    check_id = keys.name("CheckID", default_id)
    if not _name(check_id) or len(check_id) > NAME_AT_MOST + 16:
        raise Wrong(f"{keys.label('CheckID')}: must be visible ASCII characters, without spaces")
    after = keys.get("DeregisterCriticalServiceAfter")
    status = keys.text("Status", CRITICAL)
    if status not in STATUSES:
        raise Wrong(f"{keys.label('Status')}: must be passing, warning or critical")
    check = Check(
        check_id,
        keys.text("Name", default_name),
        duration(keys.get("TTL"), keys.label("TTL")),
        keys.text("Notes"),
        duration(after, keys.label("DeregisterCriticalServiceAfter")) if after else 0.0,
    )
    return check, status


def _address(text: str, what: str = "Address") -> str:
    try:
        found = ip_address(text)
    except ValueError:
        if not _host(text):
            raise Wrong(f"{what}: must be an IP address or a host name, without a port") from None
        return text.lower().removesuffix(".")
    if found.is_unspecified:
        raise Wrong(f"{what}: {found} is where a server listens; nobody can connect to it")
    return str(found)


def _tagged_addresses(data: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    if len(data) > MANY:
        raise Wrong(f"TaggedAddresses: must be at most {MANY}")
    found = {}
    for name, each in data.items():
        if not _name(name) or len(name) > NAME_AT_MOST or not isinstance(each, dict):
            raise Wrong("TaggedAddresses: must be pairs of a name without spaces and an object")
        what = f"TaggedAddresses.{name}."
        keys = _Keys(each, what)
        found[name] = _address(keys.text("Address"), f"{what}Address"), keys.whole("Port", 0, 65535, 0)
    return found


def _texts(values: list[str], what: str) -> list[str]:
    for value in values:
        if len(value) > TEXT_AT_MOST:
            raise Wrong(f"{what}: each must be at most {TEXT_AT_MOST} characters")
    return values


def _meta(data: Mapping[str, Any]) -> dict[str, str]:
    if len(data) > MANY:
        raise Wrong(f"Meta: must be at most {MANY} pairs")
    found = {key: "" if value is None else value for key, value in data.items()}
    for key, value in found.items():
        if not isinstance(value, str) or not _name(key) or len(key) > NAME_AT_MOST:
            raise Wrong("Meta: must be pairs of a name without spaces and a text")
    _texts(list(found.values()), "Meta")
    return found


def _weights(data: Mapping[str, Any] | None) -> tuple[int, int]:
    keys = _Keys(data or {}, "Weights.")
    return keys.whole("Passing", 0, 65535, 1), keys.whole("Warning", 0, 65535, 1)


def report(body: bytes) -> State:
    """What `check/update` brings: a status, and words. Raises Wrong."""
    keys = _Keys(object_of(body), "")
    status = keys.text("Status")
    if status not in STATUSES:
        raise Wrong("Status: must be passing, warning or critical")
    output = keys.get("Output") or ""
    if not isinstance(output, str):
        raise Wrong("Output: must be a text")
    return State(status, output[:OUTPUT_AT_MOST])
