"""Configuration: YAML to frozen models, with every problem at once and each at its place.

    config = load("lb.yaml")    # raises ConfigError, whose text is one `FILE:LINE:COLUMN: …` per problem

`written` keeps scalars as they stand in the file, `loader` builds plain values with their places, `values`
and `fields` read the small languages inside (durations, sizes, addresses), `section` is the base of the
models in `resilience`, `pools`, `routes` and `model`, `policy` checks policies against their classes,
`schema` serves editors and `reference` prints docs/configuration.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lb.config.loader import read_text, validated
from lb.config.model import (
    AccessLog,
    Admin,
    Config,
    Drain,
    Listener,
    ListenerLimits,
    ListenerTimeouts,
    RequestId,
)
from lb.config.pools import Backend, BalancerSpec, HealthCheck, Keepalive, Pool
from lb.config.problem import ConfigError, Problem
from lb.config.resilience import OutlierDetection, PoolLimits, PoolTimeouts, Retries
from lb.config.routes import Match, RateLimit, Route, RouteTimeouts
from lb.config.secret import TokenSource
from lb.config.tls import ProxyProtocol, Tls
from lb.config.upstream import Forwarded, PoolTls
from lb.config.values import Address, StatusSet

__all__ = [
    "AccessLog",
    "Address",
    "Admin",
    "Backend",
    "BalancerSpec",
    "Config",
    "ConfigError",
    "Drain",
    "Forwarded",
    "HealthCheck",
    "Keepalive",
    "Listener",
    "ListenerLimits",
    "ListenerTimeouts",
    "Match",
    "OutlierDetection",
    "Pool",
    "PoolLimits",
    "PoolTimeouts",
    "PoolTls",
    "Problem",
    "ProxyProtocol",
    "RateLimit",
    "RequestId",
    "Retries",
    "Route",
    "RouteTimeouts",
    "StatusSet",
    "Tls",
    "TokenSource",
    "json_schema",
    "load",
    "loads",
    "read_text",
]


def load(path: str | Path) -> Config:
    """The configuration in a file. Raises ConfigError with every problem.

    A policy of the user's own (`module:Class`) is looked for beside the file, too.
    """
    return loads(read_text(path), str(path), Path(path).parent)


def loads(text: str, name: str = "<string>", directory: Path | None = None) -> Config:
    """The configuration in a text. Raises ConfigError with every problem; the name stands for the file's.

    A policy of the user's own is looked for in the directory too, if one is given.
    """
    return validated(Config, text, name, directory)


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a configuration file, for editors and other tools."""
    from lb.config import schema  # here: it is seldom asked for

    return schema.json_schema()
