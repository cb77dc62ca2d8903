"""Pools of the supervisor, and the same pools in each worker: membership, health, states and weights.

The supervisor's pools are the ones that probes, discovery and the admin API change. A `Leader` notices what
is different since it last looked, however it came about, and says it: who has come and gone where the
membership has changed, a few backends where it is only their health, a whole set where it is simpler. A
`Follower` does the same to the pools of a worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lb.control.messages import Changes, Membership, Message, Turnover
from lb.core.backend import STATES, Backend, BackendSpec, SharedLoad
from lb.core.load_table import Places
from lb.core.pool import Pool

View = dict[str, Any]  # what a worker has to know of a backend


def put_on(backend: Backend, table: SharedLoad, place: int) -> None:
    """From now on this backend is on this place of the table (-1: as it was), with what it has in flight."""
    if place < 0 or (backend.shared is table and backend.place == place):
        return
    if backend.shared is not None:
        backend.shared.set(backend.place, 0)
    backend.shared, backend.place = table, place
    table.set(place, backend.own)


class Leader:
    """The supervisor's side of one pool.

    A backend has a place for as long as it is the same to its pool: same ID and address, and never gone.
    """

    def __init__(self, pool: Pool, places: Places) -> None:
        self.pool = pool
        self._places = places
        self._said: dict[Backend, View] = {}
        self._told_apart = False  # whether a worker has heard it all, and so something else than the others

    def whole(self) -> Membership:
        """Everything, for a worker that has just begun. The others have to hear `news` all the same."""
        self._told_apart = True
        return self._membership([self._view(each) for each in self.pool.backends.values()])

    def _membership(self, views: Iterable[View]) -> Membership:
        return Membership(self.pool.name, [_to_say(view) for view in views])

    def news(self) -> Message | None:
        """What is different since the last time, for all workers; None where nothing is."""
        said = self._said
        now = self._said = {each: self._seen(each, said.get(each)) for each in self.pool.backends.values()}
        gone = [each for each in said if each not in now]
        for each in gone:
            self._places.leave(each)
        # Of thousands, most have the very same view: that is quick to see.
        differ = [each for each, view in now.items() if view is not said.get(each)]
        come = {each for each in differ if each not in said or now[each]["spec"] != said[each]["spec"]}
        if not (gone or differ or self._told_apart or [*said] != [*now]):
            return None
        stay = [each for each in said if each in now and each not in come]
        simpler = self._told_apart or len(gone) + len(come) > len(stay)
        if simpler or stay != [each for each in now if each not in come]:
            self._told_apart = False
            return self._membership(now.values())
        changed = [
            (each.id, {name: value for name, value in now[each].items() if value != said[each][name]})
            for each in differ
            if each not in come
        ]
        if not gone and not come:
            return Changes(self.pool.name, changed)
        fresh = [(place, _to_say(now[each])) for place, each in enumerate(now) if each in come]
        return Turnover(self.pool.name, [each.id for each in gone], fresh, changed)

    def close(self) -> None:
        """The pool is no more: others may have its backends' places."""
        for backend in {*self._said, *self.pool.backends.values()}:
            self._places.leave(backend)
        self._said = {}

    def _seen(self, backend: Backend, before: View | None) -> View:
        """Its view: the very same as before, where nothing is different."""
        if (
            before is not None
            and before["spec"] is backend.spec
            and before["state"] is backend.state
            and before["healthy"] is (backend.healthy if backend.judged else None)
            and before["weight"] == backend.configured_weight
        ):
            return before
        view = self._view(backend)
        return before if before == view else view

    def _view(self, backend: Backend) -> View:
        place = self._places.take(backend)
        put_on(backend, self._places.table, place)  # so that it is known here too what all have in flight
        return {
            "spec": backend.spec,
            "place": place,
            "state": backend.state,
            "healthy": backend.healthy if backend.judged else None,
            "weight": backend.configured_weight,
        }


def _to_say(view: View) -> View:
    """As plain values, which is only done for what is said: it takes longer than to compare."""
    return {**view, "spec": asdict(view["spec"])}


class Follower:
    """A worker's side of all its pools."""

    def __init__(self, pools: Mapping[str, Pool], table: SharedLoad) -> None:
        self.pools = pools
        self._table = table
        self._coming: dict[str, View] = {}  # those of the pool that is being updated, by ID
        self._all_new = False  # whether it had none before

    def follow(self, message: Membership | Changes | Turnover) -> None:
        """Does what the supervisor has said. What it says of a pool that isn't here is not for us."""
        pool = self.pools.get(message.pool)
        if pool is None:
            return
        match message:
            case Changes():
                self._change_some(pool, message.backends)
            case Membership():
                specs = [BackendSpec(**each["spec"]) for each in message.backends]
                self._update(pool, specs, message.backends)
            case Turnover():
                coming = [view for _, view in message.come]
                left = {*message.gone, *(view["spec"]["id"] for view in coming)}
                specs = [each.spec for each in pool.backends.values() if each.id not in left]
                for place, view in message.come:
                    specs.insert(place, BackendSpec(**view["spec"]))
                self._update(pool, specs, coming)
                self._change_some(pool, message.changed)

    def _update(self, pool: Pool, specs: list[BackendSpec], coming: Sequence[View]) -> None:
        self._coming = {each["spec"]["id"]: each for each in coming}
        self._all_new = not pool.backends
        pool.update(specs)
        for each in coming:
            self._change(pool, pool.backends[each["spec"]["id"]], each)

    def _change_some(self, pool: Pool, changes: Iterable[tuple[str, View]]) -> None:
        for backend_id, change in changes:
            if backend_id in pool.backends:
                self._change(pool, pool.backends[backend_id], change)

    def on_added(self, backend: Backend) -> None:
        """To be called by the pool for each that is new, so that the policy meets it in its place already.

        Where all are new, each is made at once what it is to be. Thousands would take seconds one by one, and
        none of them is a newcomer to the others.
        """
        view = self._coming.get(backend.id)
        if view is None:
            return
        put_on(backend, self._table, view["place"])
        if self._all_new:
            backend.state = STATES[STATES.index(view["state"])]
            backend.configured_weight = view["weight"]
            if view["healthy"] is not None:
                backend.healthy = view["healthy"]
                backend.judged = True

    def _change(self, pool: Pool, backend: Backend, change: View) -> None:
        put_on(backend, self._table, change.get("place", -1))
        if change.get("healthy") is not None:
            pool.set_health(backend, change["healthy"])
        if "state" in change and change["state"] != backend.state:
            # Not the equal string that came in: the pool tells states apart by identity.
            pool.set_state(backend, STATES[STATES.index(change["state"])])
        if "weight" in change and change["weight"] != backend.configured_weight:
            pool.set_weight(backend, change["weight"])
