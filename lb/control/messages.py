"""What supervisor and workers say to each other. Every field is a plain JSON value.

The supervisor greets a new worker in this order:

    Hello · Configure · Membership, for each pool · Begin (answered with Ready, or refused)

After a reload it greets all once more, with Listeners in the place of Hello. What comes between Configure and
Begin belongs to the new configuration, and is for when it is in force.

Durations are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """Something to say."""


# --- from the supervisor ---


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """The first words: who this worker is. With it come the descriptors of the table and the listeners.

    `seat` is its number among the workers, `row` its row in the load table, which has so many `rows`.
    """

    seat: int
    row: int
    rows: int


@dataclass(frozen=True, slots=True)
class Listeners(Message):
    """What to accept on from the next Begin, in the place of all before. With it come the descriptors."""


@dataclass(frozen=True, slots=True)
class Configure(Message):
    """The configuration as text, and which file it was read from; and the names of the listeners, in its
    order, where port 0 has become another one.

    The text and not the file alone: all workers are to go by what the supervisor has checked, whatever is
    written there meanwhile.
    """

    file: str
    text: str
    listeners: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Membership(Message):
    """All backends of a pool: the fields of their specs, and what the supervisor knows of them.

    Each has `spec`, `place` (-1: none), `state`, `healthy` (None: nobody knows yet) and `weight`, the one
    that is in force.
    """

    pool: str
    backends: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Changes(Message):
    """Backends of a pool of which something is different: pairs of ID and what is."""

    pool: str
    backends: list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Turnover(Message):
    """Some of a pool's backends have gone, and some have come or have another spec: the IDs of those, and
    these as Membership has them, each with its place in the new order. `changed` are others of which
    something is different, as in Changes."""

    pool: str
    gone: list[str]
    come: list[tuple[int, dict[str, Any]]]
    changed: list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Begin(Message):
    """Everything has been said: go by it from now on, and answer with Ready."""


@dataclass(frozen=True, slots=True)
class Lend(Message):
    """Accept for this seat too: its worker is dead. With it come the descriptors of its listeners."""

    seat: int


@dataclass(frozen=True, slots=True)
class TakeBack(Message):
    """Accept no more for this seat: it has a worker again."""

    seat: int


@dataclass(frozen=True, slots=True)
class Collect(Message):
    """Say now what has been counted since, and answer with Done. Whatever came before is then done, too."""


@dataclass(frozen=True, slots=True)
class Find(Message):
    """Asks for the record of a request. Answered with Found, which has one or none."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Search(Message):
    """Asks for the newest records for which all that is given holds. Answered with Found."""

    backend: str | None = None
    status: tuple[int, int] | None = None  # the first and the last one
    failure: str | None = None
    min_duration: float = 0.0
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Reopen(Message):
    """Write the access log to the file that has its path now."""


@dataclass(frozen=True, slots=True)
class Drain(Message):
    """Take nothing new, end what is under way within so many seconds, say the last counts, and exit.

    Said once more, it is for who drains already: don't wait any longer than that.
    """

    timeout: float


# --- from a worker ---


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """What was said is in force, and connections are accepted."""


@dataclass(frozen=True, slots=True)
class Done(Message):
    """What was asked for is done."""


@dataclass(frozen=True, slots=True)
class Found(Message):
    """Records of requests as JSON-able values, newest first, and how many this worker holds.

    With each comes the Unix time at which it ended, so that those of all workers can be put in order.
    """

    records: list[tuple[float, dict[str, Any]]]
    held: int


@dataclass(frozen=True, slots=True)
class Counts(Message):
    """What has been counted since the last time: whose counters, and the differences (see sums.py)."""

    listeners: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    pools: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    backends: list[tuple[tuple[str, str, str], dict[str, Any]]] = field(default_factory=list)


# --- from either ---


@dataclass(frozen=True, slots=True)
class Refused(Message):
    """What was asked for can't be done, and why."""

    reason: str


KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        *(
            Hello,
            Listeners,
            Configure,
            Membership,
            Changes,
            Turnover,
            Begin,
            Lend,
            TakeBack,
            Collect,
            Find,
            Search,
            Reopen,
            Drain,
        ),
        *(Ready, Done, Found, Counts, Refused),
    )
}
