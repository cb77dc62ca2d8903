"""What clients get to see, in the words of Consul's API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from lb.control.registry.model import CRITICAL, MAINTENANCE, PASSING, WARNING, Instance
from lb.control.registry.table import Entry

NODE = "lb"
NODE_ID = "6c620000-0000-8000-8000-000000000001"  # of its form only: there is one node, and it is no machine
DATACENTER = "dc1"

_NO_REASON = (
    "Maintenance mode is enabled for this service, but no reason was provided. This is a default message."
)


def agent_service(entry: Entry) -> dict[str, Any]:
    """As `/v1/agent/services` has it."""
    return {**_service(entry.instance), "Datacenter": DATACENTER}


def content_hash(service: dict[str, Any]) -> str:
    """Another one for each other content of `agent_service`."""
    return blake2b(json.dumps(service, sort_keys=True).encode(), digest_size=8).hexdigest()


def _service(instance: Instance) -> dict[str, Any]:
    return {
        "ID": instance.id,
        "Service": instance.service,
        "Tags": list(instance.tags),
        "Address": instance.address,
        "TaggedAddresses": _tagged(instance),
        "Meta": dict(instance.meta),
        "Port": instance.port,
        "Weights": {"Passing": instance.weights[0], "Warning": instance.weights[1]},
        "EnableTagOverride": instance.enable_tag_override,
    }


def _tagged(instance: Instance) -> dict[str, Any]:
    """Its own, and its address where that is an IP address."""
    found = {
        name: {"Address": host, "Port": port} for name, (host, port) in instance.tagged_addresses.items()
    }
    kind = ip_kind(instance.address)
    for name in (f"lan_{kind}", f"wan_{kind}") if kind else ():
        found.setdefault(name, {"Address": instance.address, "Port": instance.port})
    return found


def ip_kind(address: str) -> str:
    """Which of the two it is; empty for a name. Addresses here are written as they should be."""
    if ":" in address:
        return "ipv6"
    return "ipv4" if address.replace(".", "").isdecimal() else ""


def checks_of(entry: Entry) -> list[dict[str, Any]]:
    """The checks of an instance, that of its maintenance too."""
    specs = {check.id: check for check in entry.instance.checks}
    found = []
    for name, state in entry.states.items():
        spec = specs.get(name)
        notes, output = spec.notes if spec is not None else "", state.output
        title = spec.name if spec is not None else name
        if name.startswith(MAINTENANCE):
            title, notes, output = "Service Maintenance Mode", output or _NO_REASON, ""
        found.append(
            {
                "Node": NODE,
                "CheckID": name,
                "Name": title,
                "Status": state.status,
                "Notes": notes,
                "Output": output,
                "ServiceID": entry.instance.id,
                "ServiceName": entry.instance.service,
                "ServiceTags": list(entry.instance.tags),
                "Type": "ttl" if spec is not None else "maintenance",
                "Definition": {},
                "CreateIndex": entry.created,
                "ModifyIndex": entry.modified,
            }
        )
    return found


def catalog_service(entry: Entry, address: str) -> dict[str, Any]:
    """As `/v1/catalog/service/NAME` has it."""
    instance = entry.instance
    return {
        **_node(address),
        "NodeMeta": {},
        "ServiceKind": "",
        "ServiceID": instance.id,
        "ServiceName": instance.service,
        "ServiceTags": list(instance.tags),
        "ServiceAddress": instance.address,
        "ServiceTaggedAddresses": _tagged(instance),
        "ServiceWeights": {"Passing": instance.weights[0], "Warning": instance.weights[1]},
        "ServiceMeta": dict(instance.meta),
        "ServicePort": instance.port,
        "ServiceEnableTagOverride": instance.enable_tag_override,
        "ServiceProxy": _NO_PROXY,
        "ServiceConnect": {},
        "CreateIndex": entry.created,
        "ModifyIndex": entry.modified,
    }


def health_service(entry: Entry, address: str) -> dict[str, Any]:
    """As `/v1/health/service/NAME` has it."""
    more = {"Proxy": _NO_PROXY, "Connect": {}, "CreateIndex": entry.created, "ModifyIndex": entry.modified}
    node = {**_node(address), "Meta": {}, "CreateIndex": 1, "ModifyIndex": 1}
    return {"Node": node, "Service": {**_service(entry.instance), **more}, "Checks": checks_of(entry)}


_NO_PROXY: dict[str, Any] = {"MeshGateway": {}, "Expose": {}}


def _node(address: str) -> dict[str, Any]:
    kind = ip_kind(address)
    names = ("lan", f"lan_{kind}", "wan", f"wan_{kind}")
    return {
        "ID": NODE_ID,
        "Node": NODE,
        "Address": address,
        "Datacenter": DATACENTER,
        "TaggedAddresses": dict.fromkeys(names, address),
    }


def local_health(entry: Entry) -> dict[str, Any]:
    """As `/v1/agent/health/service/id/ID` has it."""
    return {
        "AggregatedStatus": health_status([entry]),
        "Service": agent_service(entry),
        "Checks": checks_of(entry),
    }


def health_status(entries: Sequence[Entry]) -> str:
    """The worst status of several, where maintenance is the worst of all."""
    if any(name.startswith(MAINTENANCE) for entry in entries for name in entry.states):
        return "maintenance"
    found = {entry.status for entry in entries}
    return CRITICAL if CRITICAL in found else WARNING if WARNING in found else PASSING


def weight_of(entry: Entry) -> int:
    """The weight that it has now."""
    passing, warning = entry.instance.weights
    return warning if entry.status == WARNING else passing
