"""What the admin API knows of the rest of the house."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lb.control.prober import Prober
from lb.core.pool import Pool
from lb.observe.metrics import LbCollector
from lb.observe.records import RequestRecords


def _not_draining() -> bool:
    return False


def _no_config() -> Any:
    return {}


@dataclass
class AdminState:
    """Everything that the admin API shows and changes. Read anew at each request: a reload may replace it.

    `epoch` is the Unix time at which the monotonic clock stood at 0. `config` gives the running
    configuration as JSON-able values, `reload` loads it anew and says what was wrong with it (nothing: it is
    in force). Without a token only this machine is let in, by the name of localhost or a loopback address.
    """

    version: str
    epoch: float
    pools: Mapping[str, Pool]
    metrics: LbCollector
    records: RequestRecords | None = None
    probers: Mapping[str, Prober] = field(default_factory=dict)  # by pool
    draining: Callable[[], bool] = _not_draining
    config: Callable[[], Any] = _no_config
    reload: Callable[[], Awaitable[Sequence[str]]] | None = None
    token: str | None = None
