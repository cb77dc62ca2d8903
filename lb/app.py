"""The life of a balancer: started from a configuration, changed to another one, drained, ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lb.build import CannotStart, warnings
from lb.certificates import Renewal
from lb.config import Config, ConfigError
from lb.control.state import ReloadResult
from lb.proxy.sockets import Inherited
from lb.running.apply import apply
from lb.running.binding import in_words
from lb.running.changes import changed_keys, without_restart
from lb.running.chores import Chore, fold, leave_descriptors
from lb.running.parts import Prepared, Running
from lb.running.prepare import KNOWN_BY, prepare

if TYPE_CHECKING:
    from lb.control.admin import AdminServer

log = logging.getLogger("lb")

LOG_FLUSH = 0.2  # seconds between two writes of the access log
LOOK = 1.0  # seconds between two looks at what has gathered: durations, connections, what was replaced
KNOWN_SOON = 1.0  # seconds that the first probes have, at a fresh start, before it accepts without them
ENDED = 2.0  # seconds that what was replaced has to close, when all ends


class App(Running):
    """A running balancer.

    `load` reads the configuration anew, for reloads; without it there are none. `files` is how many
    descriptors the process may have.
    """

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        load: Callable[[], Config] | None = None,
        inherited: Inherited | None = None,
        files: int = 1024,
    ) -> None:
        super().__init__(config, loop, inherited, files)
        self.changing = asyncio.Lock()  # held while it goes from one configuration to another
        if load is not None:
            self.admin_state.reload = self.reload
        self._load = load
        self._loop = loop
        self._idle = asyncio.Event()
        self._chores = (Chore(loop, LOG_FLUSH, self._flush_log), Chore(loop, LOOK, self._look))
        self._renewal = Renewal(lambda: [tls for _, tls in self.tls()])

    # --- running ---

    async def start(self) -> None:
        """Binds and begins. Raises CannotStart, and then holds no port."""
        async with self.changing:
            new = await prepare(self, self.config)
            self._apply(new)
            self._warn()
            # Whoever comes meanwhile waits in the listeners' backlogs, or with the process before this one.
            await self._know_backends(KNOWN_BY if self.inherited.taken else KNOWN_SOON)
            try:
                await self._accept(new.admin, new.registrar.server)
            except OSError as error:
                await self.close()
                raise CannotStart(f"can't accept connections: {in_words(error)}") from error
        self.plane.sweeper.start()
        self._renewal.start()
        for chore in self._chores:
            chore.start()

    def _warn(self) -> None:
        for warning in warnings(self.config):
            if self.probes:  # else the supervisor has said it
                log.warning("%s", warning)

    async def _know_backends(self, within: float) -> None:
        """Waits until each backend has been probed once, but for no more than so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await asyncio.gather(*(prober.until_known() for prober in self.probers.values()))

    async def _accept(self, *servers: AdminServer | None) -> None:
        """Begins at the listeners that don't yet, and at the servers that are new."""
        await self.door.admit(self.listeners)
        await self._serve(*servers)

    async def _serve(self, *servers: AdminServer | None) -> None:
        for server in servers:
            if server is not None:
                await server.start()

    async def reload(self) -> ReloadResult:
        """Goes by the configuration as it is now; or on by the old one, where anything is wrong with it."""
        async with self.changing:
            try:
                result = await self._reload()
            except ConfigError as error:
                result = ReloadResult([str(problem) for problem in error.problems])
            except CannotStart as error:
                result = ReloadResult([str(error)])
            except Exception:
                log.exception("reloading failed")
                result = ReloadResult(["reloading failed; the log says more"])
        if result.problems:
            self.reloads.failed()
            for problem in result.problems:
                log.error("not reloaded: %s", problem)
        else:
            self.reloads.succeeded(time.time())
            log.info("reloaded: %s", ", ".join(result.changed) or "nothing has changed")
            for what in result.kept:
                log.warning("not changed by the reload: %s", what)
        return result

    async def _reload(self) -> ReloadResult:
        if self._load is None:
            raise CannotStart("there is no file to reload")
        config, kept = without_restart(self.config, await asyncio.to_thread(self._load))
        changed = list(changed_keys(self.config, config))
        new = await prepare(self, config)
        servers = (
            None if new.admin is self.admin else new.admin,
            None if new.registrar.server is self.registrar.server else new.registrar.server,
        )
        self._apply(new)
        self._warn()
        await self._accept(*servers)
        return ReloadResult(changed=changed, kept=kept)

    def reopen_log(self) -> None:
        """Writes the access log to the file that has its path now, where the other one was moved away."""
        if self.access_log is None or self.log_file is None:
            return
        self.access_log.flush()
        try:
            self.log_file.reopen()
        except OSError as error:
            log.error("the access log can't be reopened, and goes on in the old file: %s", error)

    async def drain(self) -> None:
        """Not ready any more, then no new connections, then the exchanges in flight, up to a cap."""
        self.draining = True
        await asyncio.sleep(self.config.drain.delay)
        await self._finish()

    async def leave_to_successor(self) -> None:
        """The same, where another process accepts on the very same sockets: there is nobody to be told."""
        self.draining = True
        for listener in self.listeners:
            listener.close(keep_file=True)
        if self.admin is not None:
            await self.admin.close()
        await self.registrar.close()
        await self._finish()

    async def _finish(self) -> None:
        for listener in self.listeners:
            listener.close()
        self.door.shut()
        self.plane.on_gone = self._on_gone
        self.plane.drain()
        if self.plane.connections:
            try:
                await asyncio.wait_for(self._idle.wait(), self.config.drain.timeout)
            except TimeoutError:
                log.warning(
                    "drain timeout after %gs: %d requests are cut",
                    self.config.drain.timeout,
                    self.plane.exchanges,
                )

    def _on_gone(self) -> None:
        if not self.plane.connections:
            self._idle.set()

    async def close(self) -> None:
        """Ends everything that is left."""
        self._renewal.stop()
        self.door.shut()
        for listener in self.listeners:
            listener.close()
        for members in self.members.values():
            members.close()
            await asyncio.gather(*(watch.close() for watch in members.watches))
        for prober in self.probers.values():
            await prober.close()
        if self.admin is not None:
            await self.admin.close()
        if self.admin_listening is not None:
            self.admin_listening.close()
        await self.registrar.close()
        await self.plane.close()
        for chore in self._chores:
            chore.stop()
        self._flush_log()
        if self.log_file is not None:
            self.log_file.close()
        await self.replaced.ended(ENDED)

    # --- what subclasses do more ---

    def _apply(self, new: Prepared) -> None:
        apply(self, new)

    def _look(self) -> None:
        fold(self)
        leave_descriptors(self)
        self.replaced.look()

    def _flush_log(self) -> None:
        if self.access_log is not None:
            self.access_log.flush()
