"""The EndpointSlices of a Service (discovery.k8s.io/v1), and the backends that they stand for.

Which endpoints serve: those that are ready, and those of which nobody said whether they are. One that
terminates leaves, and finishes what it has begun; only where no other one is left, those that still serve
while they terminate stay, as kube-proxy has it (KEP-1669).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from operator import attrgetter
from typing import NamedTuple

from msgspec import Struct

from lb.core.backend import BackendSpec
from lb.discovery.base import SourceError
from lb.discovery.named import backend_id, host

FAMILIES = {"IPv4": 0, "IPv6": 1}  # in the order in which they are preferred
NAMES = 63  # a name of a zone is a label's value, and has at most so many characters


# --- as the API has them, as far as it matters to us; None is what nobody said ---


class Conditions(Struct):
    """EndpointConditions."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Reference(Struct):
    """ObjectReference."""

    kind: str = ""
    name: str = ""


class ForZone(Struct):
    """A zone that an endpoint shall serve."""

    name: str


class Hints(Struct):
    """EndpointHints."""

    forZones: list[ForZone] | None = None


class Endpoint(Struct):
    """An address, and how it is. All addresses of an endpoint are the same one."""

    addresses: list[str] | None = None
    conditions: Conditions | None = None
    targetRef: Reference | None = None
    zone: str | None = None
    hints: Hints | None = None


class Port(Struct):
    """EndpointPort."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class Metadata(Struct):
    """Of any object."""

    name: str = ""
    resourceVersion: str = ""


class EndpointSlice(Struct):
    """Some endpoints of a Service."""

    metadata: Metadata
    addressType: str = ""
    endpoints: list[Endpoint] | None = None
    ports: list[Port] | None = None


# --- and what they stand for ---

_id = attrgetter("id")
_identity = attrgetter("id", "host", "port")


class EndpointSlices:
    """All slices of one Service. `port` is the one that is wanted: a name, a number, or empty where there is
    only one. `zone` is where we are ourselves, empty where nobody knows.

    A slice is read once, when it comes; to put all of them together takes about a millisecond for 5,000
    endpoints.
    """

    def __init__(self, port: str = "", zone: str = "") -> None:
        self._port = port
        self._zone = zone
        self._slices: dict[str, _Slice] = {}

    def put(self, item: EndpointSlice) -> None:
        """Another one, or another version of one."""
        name = item.metadata.name
        self._slices[name] = _Slice(item, self._port, self._zone, self._slices.get(name))

    def remove(self, name: str) -> None:
        self._slices.pop(name, None)

    def replace(self, items: Iterable[EndpointSlice]) -> None:
        """These, and no others."""
        left = set(self._slices)
        for item in items:
            self.put(item)
            left.discard(item.metadata.name)
        for name in left:
            self.remove(name)

    def backends(self) -> Sequence[BackendSpec]:
        """An endpoint may be in several slices for a while, and in one for each family of addresses: the
        first family counts that there is. Raises SourceError where the port is nowhere, or not clear."""
        slices = [each for _, each in sorted(self._slices.items()) if each.endpoints]
        family = min((each.family for each in slices), default=0)
        slices = [each for each in slices if each.family == family]
        self._find_port(slices)
        found = [spec for each in slices for spec in each.ready]
        found = found or [spec for each in slices for spec in each.leaving]
        found.sort(key=_id)
        if len(set(map(_id, found))) == len(found):
            return found
        specs: dict[str, BackendSpec] = {}
        for spec in found:
            specs.setdefault(spec.id, spec)
        return list(specs.values())

    def _find_port(self, slices: Sequence[_Slice]) -> None:
        """A slice may lack the port that others have: the pods of an older version don't name it yet."""
        for each in slices:
            if each.unclear:
                raise SourceError(
                    f"the Service has several ports ({each.names}): say which, as in port: http"
                )
        if slices and self._port and all(each.port is None and each.names for each in slices):
            raise SourceError(f"the Service has no port called {self._port} (there is: {slices[0].names})")


class _Slice:
    """What matters of an EndpointSlice. Specs are the very same as `before`, where they say the same."""

    def __init__(self, item: EndpointSlice, wanted: str, zone: str, before: _Slice | None) -> None:
        self.family = FAMILIES.get(item.addressType, len(FAMILIES))
        ports = [
            (each.name or "", each.port)
            for each in item.ports or ()
            if each.port is not None and (each.protocol or "TCP") == "TCP"
        ]
        self.names = ", ".join(name or "(unnamed)" for name, _ in ports)
        found = [port for name, port in ports if name == wanted or not wanted]
        self.unclear = not wanted.isdecimal() and len(found) > 1
        self.port = int(wanted) if wanted.isdecimal() else found[0] if found else None
        self.endpoints = item.endpoints or ()
        self._known: list[_Read] = []  # of the endpoints
        if self.port is not None:
            self._read(self.port, zone, before._known if before and before.port == self.port else [])
        serve = [read for read in self._known if read.spec is not None]
        self.ready = sorted([read.spec for read in serve if read.ready and read.spec], key=_identity)
        self.leaving = sorted(
            [read.spec for read in serve if read.serving and not read.ready and read.spec], key=_identity
        )  # that still serve

    def _read(self, port: int, zone: str, before: Sequence[_Read]) -> None:
        """An event brings all of a slice, though most of it is as it was, and mostly where it was."""
        by_address: dict[str, _Read] = {}
        for each, there in zip_longest(self.endpoints, before[: len(self.endpoints)]):
            if there is not None and there.endpoint == each:
                self._known.append(there)
                continue
            by_address = by_address or {read.address: read for read in before}
            self._known.append(_read(each, port, zone, by_address))


class _Read(NamedTuple):
    """An endpoint, and what it says."""

    endpoint: Endpoint
    address: str
    spec: BackendSpec | None
    ready: bool
    serving: bool


def _read(endpoint: Endpoint, port: int, zone: str, before: Mapping[str, _Read]) -> _Read:
    """Who says what was said of its address before has the very same spec."""
    address = endpoint.addresses[0] if endpoint.addresses else ""
    spec, known = _spec(endpoint, address, port, zone), before.get(address)
    if known is not None and known.spec == spec:
        spec = known.spec
    return _Read(endpoint, address, spec, *_conditions(endpoint.conditions or Conditions()))


def _conditions(conditions: Conditions) -> tuple[bool, bool]:
    """Whether it is ready, and whether it serves. What nobody said is said by `ready`, and that is true where
    nobody said (EndpointConditions)."""
    ready = conditions.ready is not False
    serving = ready if conditions.serving is None else conditions.serving
    return ready and not conditions.terminating, serving


def _spec(endpoint: Endpoint, first: str, port: int, zone: str) -> BackendSpec | None:
    """The first address is taken. The ID is the name of the pod."""
    address = host(first)
    if address is None:
        return None
    at = f"[{address}]" if ":" in address else address
    target = endpoint.targetRef
    name = backend_id(target.name) if target is not None and target.kind == "Pod" else ""
    return BackendSpec(name or backend_id(f"{at}:{port}"), address, port, zone=_zone_of(endpoint, zone))


def _zone_of(endpoint: Endpoint, ours: str) -> str:
    """The zone that an endpoint counts as one of: ours, where the cluster hints that it shall serve ours
    (topology-aware routing); another one that it shall serve; else where it is."""
    hints = [each.name for each in (endpoint.hints and endpoint.hints.forZones) or ()]
    zone = ours if ours in hints else hints[0] if hints else endpoint.zone or ""
    return backend_id(zone)[:NAMES]
