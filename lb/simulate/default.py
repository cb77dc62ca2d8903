"""What `lb simulate` runs when it is told nothing: one slow replica of four. Also in `config/scenarios/`."""

from __future__ import annotations

from lb.simulate.latency import LogNormal
from lb.simulate.scenario import Poisson, Scenario, Server

_USUAL, _SLOW = LogNormal(0.020, 0.080), LogNormal(0.100, 0.400)

ONE_SLOW_REPLICA = Scenario(
    name="one-slow-replica",
    about="Four replicas with 16 worker slots each. One takes five times as long.",
    arrivals=Poisson(rate=500.0),
    servers=(
        *(Server(f"usual-{number}", _USUAL, slots=16) for number in (1, 2, 3)),
        Server("slow", _SLOW, slots=16),
    ),
    duration=60.0,
    warm_up=5.0,
)
