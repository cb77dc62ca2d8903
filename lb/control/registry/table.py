"""The table of the registry: who is there and how, with an index that grows with each change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lb.control.registry.model import CRITICAL, Instance, State, worst

Listener = Callable[[str, str], object]  # told the service and the instance that have changed


@dataclass(slots=True)
class Entry:
    """An instance with the states of its checks, by the check's ID, and the indexes of its first and its last
    change."""

    instance: Instance
    states: dict[str, State]
    created: int
    modified: int

    @property
    def status(self) -> str:
        """The worst of its checks."""
        return worst(self.states)


class Table:
    """Everyone who is registered. Told of changes by a store; tells those who listen, by service.

    `index` is the number of the last change, from `first` on, as Consul counts them: whoever knows an index
    can wait until there is a higher one.
    """

    def __init__(self, first: int = 1) -> None:
        self.index = first
        self.version = 0  # grows with each change of anything, also where nobody is told
        self.entries: dict[str, Entry] = {}
        self._services: dict[str, dict[str, Entry]] = {}
        self._checks: dict[str, str] = {}  # by a check's ID, whose it is
        self._touched: dict[str, int] = {}  # by service, the index of its last change
        self._emptied = first  # the index at which a service last lost its last instance
        self._listeners: dict[object, Listener] = {}

    # --- asked ---

    def service(self, name: str) -> list[Entry]:
        """Its instances, in the order in which they came."""
        return list(self._services.get(name, {}).values())

    def services(self) -> Iterator[tuple[str, list[Entry]]]:
        for name, entries in self._services.items():
            yield name, list(entries.values())

    def index_of(self, service: str | None) -> int:
        """The index of the last change of a service, or of anything at all (None)."""
        if service is None:
            return self.index
        return self._touched.get(service, self._emptied)

    def owner_of(self, check: str) -> Entry | None:
        """The instance whose check has this ID."""
        owner = self._checks.get(check)
        return None if owner is None else self.entries[owner]

    # --- told ---

    def put(self, instance: Instance, states: Mapping[str, State]) -> None:
        """Someone has registered, or registered anew. Checks without a state are critical."""
        before = self.entries.get(instance.id)
        complete = {
            name: states.get(name, State(CRITICAL))
            for name in (*(check.id for check in instance.checks), *states)
        }
        if before is not None and before.instance == instance and before.states == complete:
            return
        if before is not None and before.instance.service != instance.service:
            self.remove(instance.id)
            before = None
        elif before is not None:
            self._forget_checks(before)
        index = self._next()
        entry = Entry(instance, complete, before.created if before is not None else index, index)
        self.entries[instance.id] = entry
        self._services.setdefault(instance.service, {})[instance.id] = entry
        for name in complete:
            self._checks[name] = instance.id
        self._tell(instance, index)

    def remove(self, instance_id: str) -> None:
        """Someone has gone."""
        entry = self.entries.pop(instance_id, None)
        if entry is None:
            return
        service = entry.instance.service
        self._forget_checks(entry)
        index = self._next()
        others = self._services[service]
        del others[instance_id]
        if not others:
            del self._services[service]
            self._emptied = index
        self._tell(entry.instance, index)
        if not others:
            del self._touched[service]

    def set_state(self, instance_id: str, check: str, state: State | None) -> None:
        """A check says something else; None takes the check away, where the instance has not come with it.

        Other words for the same status are no change that anyone is told of.
        """
        entry = self.entries.get(instance_id)
        if entry is None or (check not in entry.states and state is None):
            return
        before = entry.states.get(check)
        if state is None:
            if any(each.id == check for each in entry.instance.checks):
                state = State(CRITICAL)
            else:
                del entry.states[check], self._checks[check]
        if state is not None:
            entry.states[check] = state
            self._checks[check] = instance_id
            self.version += state != before
            if before is not None and before.status == state.status:
                return
        entry.modified = index = self._next()
        self._tell(entry.instance, index)

    def replace(self, wanted: Mapping[str, tuple[Instance, Mapping[str, State]]]) -> None:
        """This is everyone. What is the same stays untouched."""
        for gone in [name for name in self.entries if name not in wanted]:
            self.remove(gone)
        for instance, states in wanted.values():
            self.put(instance, states)

    # --- listening ---

    def listen(self, listener: Listener) -> Callable[[], None]:
        """From now on it is told of each change. Returns what ends it."""
        key = object()
        self._listeners[key] = listener
        return lambda: self._listeners.pop(key, None) and None

    def stir(self) -> None:
        """How well the table is known has changed: listeners are told with no names."""
        for listener in list(self._listeners.values()):
            listener("", "")

    def _tell(self, instance: Instance, index: int) -> None:
        self._touched[instance.service] = index
        for listener in list(self._listeners.values()):
            listener(instance.service, instance.id)

    def _next(self) -> int:
        self.index += 1
        self.version += 1
        return self.index

    def _forget_checks(self, entry: Entry) -> None:
        for name in entry.states:
            self._checks.pop(name, None)
