"""The registry of a running balancer: its store, its own address, its part in the pools."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from lb.build import CannotStart
from lb.config import Address, Config
from lb.core.backend import BackendSpec

if TYPE_CHECKING:
    from lb.config.registry import Registry as RegistrySection
    from lb.config.registry import Store as StoreSection
    from lb.control.admin import AdminServer
    from lb.control.registry.registry import Registry
    from lb.control.registry.store import Store
    from lb.control.registry.table import Entry, Table
    from lb.control.state import AdminState
    from lb.proxy.sockets import Listening
    from lb.running.parts import Running


class Registrar:
    """The registry, the token that changes need, the server on its own address: each where there is one."""

    def __init__(self, registry: Registry | None = None, token: str | None = None) -> None:
        self.registry = registry
        self.token = token
        self.is_at: Address | None = None
        self.listening: Listening | None = None
        self.server: AdminServer | None = None

    def serve_at(self, address: Address, listening: Listening, state: AdminState) -> None:
        """Gets ready to be asked there."""
        from lb.control.admin import AdminServer
        from lb.control.registry.api import RegistryApi
        from lb.control.registry.server import build_registry

        api = RegistryApi(lambda: state.registry, lambda: state.registry_token)
        self.is_at, self.listening = address, listening
        self.server = AdminServer(state, listening.sockets, build_registry(api))

    def same_server(self, other: Registrar) -> None:
        """Goes on with what another one has there."""
        self.is_at, self.listening, self.server = other.is_at, other.listening, other.server

    async def close_server(self) -> None:
        """Nobody is answered there any more."""
        if self.server is not None:
            await self.server.close()
        if self.listening is not None:
            self.listening.close()

    async def close(self) -> None:
        """Ends all of it."""
        await self.close_server()
        if self.registry is not None:
            await self.registry.close()


async def prepare_registrar(app: Running, config: Config, undo: AsyncExitStack) -> Registrar:
    """What a configuration asks for, where it can be as it runs. Raises CannotStart.

    Of several workers none has a registry, but their supervisor.
    """
    section, running = config.registry, app.registrar
    if section is None or not app.discovers:
        return Registrar()
    registrar = Registrar(running.registry, _token(section))
    if section.bind is not None and section.bind == running.is_at:
        registrar.same_server(running)
    if registrar.registry is None:
        from lb.control.registry.registry import Registry

        registrar.registry = registry = Registry(_store(section.store, app.inherited.there), app.clock)
        undo.push_async_callback(registry.close)
        await _open(registry, section)
    return registrar


async def _open(registry: Registry, section: RegistrySection) -> None:
    from lb.control.registry.journal import Damaged, Taken

    try:
        await registry.open()
    except OSError as error:
        where = error.filename or section.store.file or section.store.ca
        raise CannotStart(f"registry: {where}: {(error.strerror or str(error)).lower()}") from error
    except (Damaged, Taken) as error:
        raise CannotStart(f"registry: {error}") from error


def _store(section: StoreSection, follows: bool) -> Store:
    if section.file is not None:
        from lb.control.registry.journal import FileStore

        return FileStore(section.file, waits=follows)
    if section.etcd:
        from lb.control.registry.etcd import EtcdStore
        from lb.control.registry.etcd_client import Login

        login = None
        if section.user is not None and section.password is not None:
            login = Login(section.user, section.password.read)
        ca = section.ca
        return EtcdStore(
            section.etcd, login, None if ca is None else lambda: ssl.create_default_context(cafile=ca)
        )
    from lb.control.registry.store import MemoryStore

    return MemoryStore()


def _token(section: RegistrySection) -> str | None:
    try:
        return None if section.token is None else section.token.read()
    except ValueError as error:
        raise CannotStart(str(error)) from error


class RegisteredService:
    """A service in the registry's table, as a pool's source sees it: while somebody listens, only those who
    have changed are looked at.

    An instance without a port can't be a backend. `tier` and `zone` may stand in its Meta.
    """

    def __init__(self, registry: Registry, name: str, tags: Sequence[str]) -> None:
        self._registry = registry
        self._table: Table = registry.table
        self._name = name
        self._tags = frozenset(tags)
        self._specs: dict[str, BackendSpec | None] = {}  # of all instances, None for those that don't serve
        self._changed: dict[str, None] | None = None  # their IDs, in order; None: nobody knows

    @property
    def trouble(self) -> str:
        return self._registry.trouble

    def listen(self, on_change: Callable[[], object]) -> Callable[[], None]:
        def heard(service: str, instance_id: str) -> None:
            if service == self._name and self._changed is not None:
                self._changed[instance_id] = None
            if service in ("", self._name):
                on_change()

        def stop() -> None:
            self._changed = None
            end()

        end = self._table.listen(heard)
        self._changed = None
        return stop

    def backends(self) -> Sequence[BackendSpec]:
        if self._changed is None:
            before, self._specs = self._specs, {}
            for entry in self._table.service(self._name):
                self._look_at(entry, before)
        else:
            for instance_id in self._changed:
                changed = self._table.entries.get(instance_id)
                if changed is None or changed.instance.service != self._name:
                    self._specs.pop(instance_id, None)
                else:
                    self._look_at(changed, self._specs)
        self._changed = {}
        return [spec for spec in self._specs.values() if spec is not None]

    def _look_at(self, entry: Entry, before: Mapping[str, BackendSpec | None]) -> None:
        """Who says the same again is the very same."""
        instance = entry.instance
        spec = None
        if entry.status != "critical" and instance.port and self._tags <= set(instance.tags):
            spec = _spec(entry)
            known = before.get(instance.id)
            spec = known if spec == known else spec
        self._specs[instance.id] = spec


def _spec(entry: Entry) -> BackendSpec:
    from lb.control.registry.views import weight_of

    instance = entry.instance
    tier = instance.meta.get("tier", "0")
    return BackendSpec(
        instance.id,
        instance.address,
        instance.port,
        weight_of(entry),
        int(tier) if len(tier) == 1 and tier in "0123456789" else 0,
        zone=instance.meta.get("zone", ""),
    )
