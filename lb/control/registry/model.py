"""What the registry knows: instances of services, and the checks that say how they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PASSING: Final = "passing"
WARNING: Final = "warning"
CRITICAL: Final = "critical"
STATUSES: Final = (PASSING, WARNING, CRITICAL)  # from the best to the worst

MAINTENANCE: Final = "_service_maintenance:"  # Consul's name for the check that stands for maintenance


@dataclass(frozen=True, slots=True)
class Check:
    """How an instance says that it is well: at least once in each `ttl` seconds, or it is critical.

    A `ttl` of 0.0 is a check that only changes when somebody says so. An instance whose check is critical
    for `deregister_after` seconds is deregistered; 0.0 is never.
    """

    id: str
    name: str
    ttl: float
    notes: str = ""
    deregister_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a service, as it has registered. Weights are for when it is passing, and warning."""

    id: str
    service: str
    address: str
    port: int
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    weights: tuple[int, int] = (1, 1)
    checks: tuple[Check, ...] = ()
    enable_tag_override: bool = False
    tagged_addresses: Mapping[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """What a check says: the status, and a few words of who set it."""

    status: str
    output: str = ""


def expired(last: State | None) -> State:
    """What a check says when its heartbeat has stayed away, with what it said before."""
    if last is None or not last.output or last.output.startswith(_EXPIRED):
        return State(CRITICAL, last.output if last is not None and last.output else _EXPIRED)
    return State(CRITICAL, f"{_EXPIRED} (last output before timeout follows): {last.output}")


_EXPIRED: Final = "TTL expired"


def worst(states: Mapping[str, State]) -> str:
    """The worst status of these; passing where there is none."""
    rank = max((STATUSES.index(state.status) for state in states.values()), default=0)
    return STATUSES[rank]


# --- as a store keeps them ---


def to_record(instance: Instance) -> dict[str, Any]:
    """As values of JSON."""
    return {
        "id": instance.id,
        "service": instance.service,
        "address": instance.address,
        "port": instance.port,
        "tags": list(instance.tags),
        "meta": dict(instance.meta),
        "weights": list(instance.weights),
        "checks": [
            {
                "id": check.id,
                "name": check.name,
                "ttl": check.ttl,
                "notes": check.notes,
                "deregister_after": check.deregister_after,
            }
            for check in instance.checks
        ],
        "enable_tag_override": instance.enable_tag_override,
        "tagged_addresses": {name: list(each) for name, each in instance.tagged_addresses.items()},
    }


def from_record(record: Mapping[str, Any]) -> Instance:
    """Raises KeyError, TypeError or ValueError for anything that `to_record` has not made."""
    passing, warning = record["weights"]
    return Instance(
        str(record["id"]),
        str(record["service"]),
        str(record["address"]),
        int(record["port"]),
        tuple(str(tag) for tag in record["tags"]),
        {str(key): str(value) for key, value in record["meta"].items()},
        (int(passing), int(warning)),
        tuple(
            Check(
                str(check["id"]),
                str(check["name"]),
                float(check["ttl"]),
                str(check["notes"]),
                float(check["deregister_after"]),
            )
            for check in record["checks"]
        ),
        bool(record["enable_tag_override"]),
        {  # which others may not know yet
            str(name): (str(address), int(port))
            for name, (address, port) in record.get("tagged_addresses", {}).items()
        },
    )
