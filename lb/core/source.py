"""What is known of a pool's sources: where its backends come from, and how asking for them went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

STATIC = "static"  # where a backend comes from that the configuration itself names


@dataclass(slots=True)
class SourceState:
    """How one source of a pool does. Times are Unix times, 0 where it never happened."""

    kind: str  # file, dns, consul, ...
    about: str  # what it asks for, as in greeter.internal:8080
    name: str  # the kind, with a number behind it where the pool has several of that kind
    backends: int = 0  # how many it has named last
    known: bool = False  # whether there is a set at all, however old
    last_success: float = 0.0
    last_error: float = 0.0
    error: str = ""  # why it fails at the moment; empty where it doesn't
    updates: dict[str, int] = field(default_factory=lambda: {"success": 0, "kept": 0, "failure": 0})


class PoolSources(Protocol):
    """The sources of one pool."""

    @property
    def states(self) -> Sequence[SourceState]:
        """Each of them, in the order of the configuration."""

    @property
    def origins(self) -> Mapping[str, str]:
        """The name of the source that each backend comes from, by the backend's ID."""
