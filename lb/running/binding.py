"""The addresses of a configuration that is about to hold: taken if they are new, else kept."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import AsyncExitStack
from ipaddress import ip_address

from lb.build import CannotStart, listener_options
from lb.certificates import server_tls
from lb.config import Address
from lb.config import Listener as ListenerConfig
from lb.proxy.listener import Listener, ListenerOptions
from lb.proxy.sockets import Listening
from lb.running.parts import Prepared, Running


class Addresses:
    """Takes the addresses that a balancer doesn't have yet. Whatever can't be is CannotStart, and what has
    been taken by then is for `undo` to give back."""

    def __init__(self, app: Running, undo: AsyncExitStack) -> None:
        self._app = app
        self._undo = undo
        self._fresh: list[tuple[str, Listening]] = []  # and what each is for

    async def bind_listeners(self, new: Prepared) -> None:
        """The listeners: those that are there already as far as they can do what they are to do."""
        there = list(self._app.listeners)
        for ours in new.config.listeners:
            listener = next((each for each in there if _is_at(each.listening, ours.bind)), None)
            before = None if listener is None else listener.options
            tls = server_tls(ours.tls, listener.name if listener else str(ours.bind), before and before.tls)
            options = listener_options(ours, tls)
            if listener is not None:
                there.remove(listener)
            if listener is None or not listener.options.same_entrance(options):
                listener = await self._new_listener(ours, options, listener)
            new.listeners.append(listener)
            new.options.append(options)

    async def _new_listener(
        self, ours: ListenerConfig, options: ListenerOptions, before: Listener | None
    ) -> Listener:
        """One that takes over the address of `before`: who came in by another way has to leave soon."""
        if before is not None:
            listening = before.listening
        else:
            listening = await self._take("listener", ours.bind, self._app.listening(ours.bind))
        app = self._app
        listener = Listener(app.plane, app.door, listening, options, app.clients.listener)
        self._undo.callback(listener.pause)
        try:
            await listener.open()
        except OSError as error:
            raise CannotStart(f"listener {ours.bind}: {in_words(error)}") from error
        return listener

    async def bind_admin(self, new: Prepared) -> None:
        """The address of the admin API."""
        admin = new.config.admin
        if admin is None:
            return
        new.admin, new.admin_listening = self._app.admin, self._app.admin_listening
        if new.admin_listening is None or not _is_at(new.admin_listening, admin.bind):
            from lb.control.admin import AdminServer  # see `health_check`

            listening = await self._take_own("admin", admin.bind)
            if new.token is None:
                must_be_local(admin.bind, listening)
            new.admin_listening = listening
            new.admin = AdminServer(self._app.admin_state, listening.sockets)

    async def bind_registry(self, new: Prepared) -> None:
        """The registry's own address, where it has one."""
        section, registrar = new.config.registry, new.registrar
        if section is None or section.bind is None or registrar.registry is None:
            return
        if registrar.is_at is None:
            listening = await self._take_own("registry", section.bind)
            registrar.serve_at(section.bind, listening, self._app.admin_state)

    def listen(self) -> None:
        """Connections to the new addresses wait from now on until they are accepted."""
        for what, listening in self._fresh:
            try:
                listening.listen()
            except OSError as error:
                raise CannotStart(f"{what}: {in_words(error)}") from error

    async def _take_own(self, what: str, address: Address) -> Listening:
        """An address that isn't for the balancer's clients."""
        return await self._take(what, address, Listening(address.host, address.port, address.path, what))

    async def _take(self, what: str, address: Address, listening: Listening) -> Listening:
        self._undo.callback(listening.close)
        try:
            await listening.bind(self._app.inherited)
        except OSError as error:
            raise CannotStart(f"{what} {address}: {in_words(error)}") from error
        self._fresh.append((f"{what} {address}", listening))
        return listening


def must_be_local(bind: Address, listening: Listening) -> None:
    """What a name stands for is known only now: localhost may well be another machine's address."""
    for sock in listening.sockets:
        if sock.family != socket.AF_UNIX and not ip_address(sock.getsockname()[0]).is_loopback:
            raise CannotStart(
                f"admin {bind}: is {sock.getsockname()[0]}, which other machines can reach, so admin needs a "
                "token: token: {file: PATH} or {env: NAME}; or bind it to 127.0.0.1"
            )


def _is_at(listening: Listening, address: Address) -> bool:
    return (listening.host, listening.port, listening.path) == (address.host, address.port, address.path)


def in_words(error: OSError) -> str:
    """What the kernel or the resolver has to say."""
    number = error.errno
    if number is not None and number in errno.errorcode and not isinstance(error, socket.gaierror):
        return os.strerror(number).lower()
    return (error.strerror or str(error)).lower()
