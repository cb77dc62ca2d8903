"""Zones: backends near the balancer come first, for as long as they can bear it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lb.core.backend import Backend
from lb.core.rules import ZoneRules

SPARE = 1.4
"""A backend of our own zone takes up to so many times what it would if all zones shared evenly: as much as
one of a tier takes over from those that are ill (see share.py)."""


def near_first(
    active: Sequence[Backend], well: Sequence[Backend], loads: Mapping[int, float], rules: ZoneRules
) -> tuple[list[Backend], list[int], dict[int, float]]:
    """Who of those that are well serves, the group of each, and the load of each group (none: there is one).

    `active` are all that are meant to serve, `loads` those of the tiers (none: there is but one). Within a
    tier, our own zone takes all that it can bear and the others what is left. Where that is nothing, they
    stand by.
    """
    chosen, groups, found = list[Backend](), list[int](), dict[int, float]()
    for tier in loads or {0: 1.0}:
        load = loads[tier] if loads else 1.0
        of_tier = [each for each in well if not loads or each.spec.tier == tier]
        part = near_part([each for each in active if not loads or each.spec.tier == tier], of_tier, rules)
        for group, share in ((2 * tier, part), (2 * tier + 1, 1.0 - part)):
            if share > 1e-9:
                found[group] = load * share
        for backend in of_tier:
            group = 2 * tier + (backend.spec.zone != rules.zone)
            if group in found:
                chosen.append(backend)
                groups.append(group)
            else:
                backend.standby = f"standby (zone {backend.spec.zone or 'unknown'})"
    return chosen, groups, found if len(found) > 1 else {}


def near_part(active: Sequence[Backend], well: Sequence[Backend], rules: ZoneRules) -> float:
    """The part of its traffic that our zone can bear, from 0 to 1.

    That is as its part of the weight that is well is to its part of all traffic. Where nobody said what that
    is, each zone has as much as any other.
    """
    near = [each for each in well if each.spec.zone == rules.zone]
    if len(near) < rules.least:
        return 0.0
    if len(near) == len(well):
        return 1.0
    traffic = rules.traffic or 1.0 / len({rules.zone, *[each.spec.zone for each in active]})
    weight = sum([each.configured_weight for each in near])
    return min(1.0, SPARE * weight / sum([each.configured_weight for each in well]) / traffic)
