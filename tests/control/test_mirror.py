"""What the supervisor knows of its backends, the workers know too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from random import Random
from typing import ClassVar

import pytest

from lb.control.messages import Changes, Membership, Message, Turnover
from lb.control.mirror import Follower, Leader
from lb.core.backend import DISABLED, DRAINING, STATES, Backend
from lb.core.load_table import CELL, LoadTable, Places
from lb.core.pool import Pool
from lb.core.rules import PoolRules
from tests.core.fleet import FirstOfAll, made_pool, specs


class Mirrored:
    """A pool of the supervisor, and that of a worker."""

    def __init__(self, starts_healthy: bool = True) -> None:
        memory = memoryview(bytearray(8 * CELL))
        self.places = Places(LoadTable(memory, 1))
        self.ours = made_pool(specs(a=1, b=2), starts_healthy=starts_healthy)
        self.leader = Leader(self.ours, self.places)
        self.theirs = made_pool(starts_healthy=starts_healthy)
        self.table = LoadTable(memory, 1, 0)
        self.follower = Follower({"greeter": self.theirs}, self.table)
        self.theirs.on_added = self.follower.on_added

    @property
    def placed(self) -> dict[str, int]:
        """Where each backend of the worker is, who has a place."""
        return {each.id: each.place for each in self.theirs.backends.values() if each.shared is self.table}

    def pass_on(self) -> Message | None:
        """Tells the worker what is new."""
        news = self.leader.news()
        if news is not None:
            self.hear(news)
        return news

    def hear(self, message: Message) -> None:
        heard = type(message)(**json.loads(json.dumps(asdict(message))))
        assert isinstance(heard, Membership | Changes | Turnover)
        self.follower.follow(heard)


@pytest.fixture
def mirrored() -> Mirrored:
    mirrored = Mirrored()
    mirrored.pass_on()
    return mirrored


def seen(pool: Pool) -> Sequence[object]:
    return [
        (each.spec, each.state, each.healthy, each.judged, each.configured_weight)
        for each in pool.backends.values()
    ]


def test_a_worker_that_begins_hears_it_all() -> None:
    mirrored = Mirrored(starts_healthy=False)
    ours = mirrored.ours
    ours.set_health(ours.backends["a"], True)
    ours.set_state(ours.backends["b"], DRAINING)
    ours.set_weight(ours.backends["b"], 7)
    mirrored.hear(mirrored.leader.whole())
    assert seen(mirrored.theirs) == seen(ours)
    assert [each.id for each in mirrored.theirs.eligible] == ["a"]
    assert mirrored.placed == {"a": 0, "b": 1}


def test_a_backend_that_nobody_has_judged_is_not_ill() -> None:
    mirrored = Mirrored(starts_healthy=False)
    mirrored.pass_on()
    assert [each.judged for each in mirrored.theirs.backends.values()] == [False, False]
    mirrored.ours.set_health(mirrored.ours.backends["a"], False)
    assert mirrored.pass_on() == Changes("greeter", [("a", {"healthy": False})])
    assert [each.judged for each in mirrored.theirs.backends.values()] == [True, False]


def test_no_news_where_nothing_is_different(mirrored: Mirrored) -> None:
    assert mirrored.pass_on() is None
    mirrored.ours.refresh()
    assert mirrored.pass_on() is None


def test_only_what_is_different_is_said(mirrored: Mirrored) -> None:
    ours = mirrored.ours
    ours.set_health(ours.backends["b"], False)
    ours.set_weight(ours.backends["b"], 5)
    ours.set_state(ours.backends["a"], DISABLED)
    changes = [("a", {"state": "disabled"}), ("b", {"healthy": False, "weight": 5})]
    assert mirrored.pass_on() == Changes("greeter", changes)
    assert seen(mirrored.theirs) == seen(ours)


def test_states_are_the_very_ones_that_the_pool_knows(mirrored: Mirrored) -> None:
    mirrored.ours.set_state(mirrored.ours.backends["a"], DRAINING)
    mirrored.pass_on()
    assert mirrored.theirs.backends["a"].state is STATES[1]


def test_who_comes_and_who_goes(mirrored: Mirrored) -> None:
    stays = mirrored.theirs.backends["b"]
    stays.requests[200] = 1
    mirrored.ours.update(specs(b=2, c=1))
    assert isinstance(mirrored.pass_on(), Membership)
    assert [*mirrored.theirs.backends] == ["b", "c"]
    assert mirrored.theirs.backends["b"] is stays
    assert mirrored.placed == {"b": 1, "c": 2}
    assert mirrored.places.left() == [0]


def test_a_new_weight_in_the_configuration(mirrored: Mirrored) -> None:
    mirrored.ours.update(specs(a=9, b=2))
    mirrored.pass_on()
    assert seen(mirrored.theirs) == seen(mirrored.ours)


def test_another_address_is_another_backend(mirrored: Mirrored) -> None:
    before = mirrored.theirs.backends["a"]
    a, b = specs(a=1, b=2)
    mirrored.ours.update([replace(a, port=9999), b])
    mirrored.pass_on()
    assert mirrored.theirs.backends["a"] is not before
    assert mirrored.placed == {"a": 2, "b": 1}
    assert mirrored.places.left() == [0]


def test_who_leaves_and_is_back_before_the_workers_hear_of_it_has_a_new_place(mirrored: Mirrored) -> None:
    before = mirrored.theirs.backends["a"]
    mirrored.theirs.start(before)
    mirrored.ours.update(specs(b=2))
    mirrored.ours.update(specs(b=2, a=1))
    mirrored.pass_on()
    assert mirrored.theirs.backends["a"] is before
    assert mirrored.placed == {"a": 2, "b": 1}
    assert [mirrored.table.total(place) for place in range(3)] == [0, 0, 1]
    assert mirrored.places.left() == [0]


def test_the_supervisor_knows_what_all_have_in_flight(mirrored: Mirrored) -> None:
    for _ in range(3):
        mirrored.theirs.start(mirrored.theirs.backends["b"])
    assert [each.in_flight for each in mirrored.ours.backends.values()] == [0, 3]


def test_a_backend_has_its_place_before_the_policy_meets_it(mirrored: Mirrored) -> None:
    class Meets(FirstOfAll):
        met: ClassVar[list[int]] = []

        def rebuild(self, backends: Sequence[Backend]) -> None:
            self.met += [each.place for each in backends if each.shared is not None]

    mirrored.theirs.replace_policy(Meets(mirrored.theirs.clock, Random(1)))
    mirrored.ours.update(specs(c=1))
    mirrored.pass_on()
    assert set(Meets.met) == {0, 1, 2}


def test_who_has_no_place_goes_without() -> None:
    mirrored = Mirrored()
    mirrored.ours.update(specs(**dict.fromkeys("abcdefghij", 1)))
    mirrored.pass_on()
    assert len(mirrored.placed) == 8
    assert len(mirrored.theirs.backends) == 10


def test_a_pool_that_is_no_more_gives_its_places_back(mirrored: Mirrored) -> None:
    mirrored.leader.close()
    assert sorted(mirrored.places.left()) == [0, 1]


def test_what_is_not_here_is_not_for_us(mirrored: Mirrored) -> None:
    mirrored.follower.follow(Changes("another", [("a", {"healthy": False})]))
    mirrored.follower.follow(Membership("another", []))
    mirrored.follower.follow(Changes("greeter", [("nobody", {"healthy": False})]))
    assert seen(mirrored.theirs) == seen(mirrored.ours)


def test_of_many_only_those_are_said_who_come_and_go() -> None:
    mirrored = Mirrored()
    mirrored.ours.update(specs(**dict.fromkeys("abcdef", 1)))
    mirrored.pass_on()
    mirrored.ours.set_state(mirrored.ours.backends["b"], DRAINING)
    mirrored.ours.update(specs(**dict.fromkeys("axbdef", 1) | {"d": 5}))
    news = mirrored.pass_on()
    assert isinstance(news, Turnover)
    assert news.gone == ["c"]
    assert [(place, view["spec"]["id"]) for place, view in news.come] == [(1, "x"), (3, "d")]
    assert news.changed == [("b", {"state": "draining"})]
    assert seen(mirrored.theirs) == seen(mirrored.ours)


@pytest.mark.parametrize("seed", range(20))
def test_all_workers_agree_whatever_happens(seed: int) -> None:
    """Also those that begin in the midst of it, and have heard what the others have still to hear."""
    rng = Random(seed)
    mirrored = Mirrored(starts_healthy=rng.random() < 0.5)
    workers = [mirrored.theirs]
    members = {name: rng.randint(1, 3) for name in "abcdefghij"}
    for _ in range(200):
        step = rng.random()
        if step < 0.5:
            name = rng.choice("abcdefghijklmn")
            if rng.random() < 0.5:
                members[name] = rng.randint(1, 3)
            else:
                members.pop(name, None)
            if rng.random() < 0.1:
                members = dict(rng.sample([*members.items()], len(members)))
            ports = {name: 9000 + (rng.random() < 0.1) for name in members}
            mirrored.ours.update([replace(each, port=ports[each.id]) for each in specs(**members)])
        elif step < 0.8 and mirrored.ours.backends:
            backend = rng.choice([*mirrored.ours.backends.values()])
            mirrored.ours.set_health(backend, rng.random() < 0.5)
            mirrored.ours.set_state(backend, rng.choice(STATES))
        elif step < 0.85:
            fresh = made_pool(starts_healthy=mirrored.ours.starts_healthy)
            fresh.on_added = mirrored.follower.on_added
            workers.append(fresh)
            mirrored.follower.pools = {"greeter": fresh}
            mirrored.hear(mirrored.leader.whole())
        else:
            news = mirrored.leader.news()
            for worker in workers if news is not None else ():
                mirrored.follower.pools = {"greeter": worker}
                mirrored.hear(news)
            for worker in workers:
                assert [*worker.backends] == [*mirrored.ours.backends]
                for ours, theirs in zip(
                    mirrored.ours.backends.values(), worker.backends.values(), strict=True
                ):
                    assert (theirs.spec, theirs.state) == (ours.spec, ours.state)
                    assert theirs.configured_weight == ours.configured_weight
                    # Who was back before they heard that it was gone is as well to them as it was.
                    assert not ours.judged or theirs.healthy == ours.healthy


def test_a_worker_that_begins_settles_its_pool_once() -> None:
    """With 3,000 backends each time takes milliseconds."""
    mirrored = Mirrored(starts_healthy=False)
    for backend in mirrored.ours.backends.values():
        mirrored.ours.set_health(backend, True)
    times: list[int] = []
    mirrored.theirs.on_changed = lambda: times.append(len(mirrored.theirs.eligible))
    mirrored.hear(mirrored.leader.whole())
    assert times == [2]


def test_a_newcomer_starts_slowly_in_the_workers_too(mirrored: Mirrored) -> None:
    for pool in (mirrored.ours, mirrored.theirs):
        pool.configure(PoolRules(slow_start=10.0))
    mirrored.ours.update(specs(a=1, b=2, c=1))
    mirrored.pass_on()
    shares = [backend.share for backend in mirrored.theirs.backends.values()]
    assert shares == [backend.share for backend in mirrored.ours.backends.values()]
    assert shares[2] < shares[0]
