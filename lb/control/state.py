"""What the admin API knows of the rest of the house."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lb.control.all_records import Records
from lb.core.pool import Pool
from lb.core.source import PoolSources
from lb.observe.metrics import LbCollector

if TYPE_CHECKING:
    from lb.control.prober import Prober
    from lb.control.registry.registry import Registry


@dataclass(frozen=True)
class ReloadResult:
    """How a reload went: what was wrong (nothing: the new configuration is in force), the keys that have
    changed, and what can't change while the process runs."""

    problems: Sequence[str] = ()
    changed: Sequence[str] = ()
    kept: Sequence[str] = ()


def _not_draining() -> bool:
    return False


def _no_config() -> Any:
    return {}


async def _nothing_to_collect() -> None:
    pass


def _queued(pool: Pool) -> int:
    return len(pool.waiting)


@dataclass
class AdminState:
    """Everything that the admin API shows and changes. Read anew at each request: a reload may replace it.

    `epoch` is the Unix time at which the monotonic clock stood at 0. `config` gives the running
    configuration as JSON-able values, `reload` loads it anew. `collect` is awaited before counters are shown
    and after backends were changed: worker processes have then said what they counted, and heard what has
    changed. `queued` is how many requests wait for a pool. `sources` are those of the pools that have any.
    Without a token only this machine is let in, by the name of localhost, a loopback address or one of
    `hosts`.
    """

    version: str
    epoch: float
    pools: Mapping[str, Pool]
    metrics: LbCollector
    records: Records | None = None
    probers: Mapping[str, Prober] = field(default_factory=dict)  # by pool
    draining: Callable[[], bool] = _not_draining
    config: Callable[[], Any] = _no_config
    reload: Callable[[], Awaitable[ReloadResult]] | None = None
    collect: Callable[[], Awaitable[None]] = _nothing_to_collect
    queued: Callable[[Pool], int] = _queued
    sources: Mapping[str, PoolSources] = field(default_factory=dict)  # by pool
    token: str | None = None
    registry: Registry | None = None
    registry_token: str | None = None
    hosts: frozenset[str] = frozenset()
