"""What clients get to see, in the words of Consul's API."""

from __future__ import annotations

from typing import Any

from lb.control.registry.model import MAINTENANCE, WARNING
from lb.control.registry.table import Entry

NODE = "lb"
DATACENTER = "dc1"


def agent_service(entry: Entry) -> dict[str, Any]:
    """As `/v1/agent/services` has it."""
    return {**_service(entry), "Datacenter": DATACENTER}


def _service(entry: Entry) -> dict[str, Any]:
    instance = entry.instance
    return {
        "ID": instance.id,
        "Service": instance.service,
        "Tags": list(instance.tags),
        "Address": instance.address,
        "Meta": dict(instance.meta),
        "Port": instance.port,
        "Weights": {"Passing": instance.weights[0], "Warning": instance.weights[1]},
        "EnableTagOverride": instance.enable_tag_override,
    }


def checks_of(entry: Entry) -> list[dict[str, Any]]:
    """The checks of an instance, that of its maintenance too."""
    specs = {check.id: check for check in entry.instance.checks}
    found = []
    for name, state in entry.states.items():
        spec = specs.get(name)
        title = "Service Maintenance Mode" if name.startswith(MAINTENANCE) else name
        found.append(
            {
                "Node": NODE,
                "CheckID": name,
                "Name": spec.name if spec is not None else title,
                "Status": state.status,
                "Notes": spec.notes if spec is not None else "",
                "Output": state.output,
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
        "ServiceWeights": {"Passing": instance.weights[0], "Warning": instance.weights[1]},
        "ServiceMeta": dict(instance.meta),
        "ServicePort": instance.port,
        "ServiceEnableTagOverride": instance.enable_tag_override,
        "CreateIndex": entry.created,
        "ModifyIndex": entry.modified,
    }


def health_service(entry: Entry, address: str) -> dict[str, Any]:
    """As `/v1/health/service/NAME` has it."""
    indexes = {"CreateIndex": entry.created, "ModifyIndex": entry.modified}
    node = {**_node(address), "Meta": {}, "CreateIndex": 1, "ModifyIndex": 1}
    return {"Node": node, "Service": {**_service(entry), **indexes}, "Checks": checks_of(entry)}


def _node(address: str) -> dict[str, Any]:
    return {"ID": "", "Node": NODE, "Address": address, "Datacenter": DATACENTER, "TaggedAddresses": {}}


def weight_of(entry: Entry) -> int:
    """The weight that it has now."""
    passing, warning = entry.instance.weights
    return warning if entry.status == WARNING else passing
