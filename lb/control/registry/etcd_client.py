"""Questions to etcd, through the JSON gateway of its v3 API: to any member, as a user where it wants one."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from lb.control.registry.store import Unavailable

PREFIX: Final = "/lb/registry/"  # of all keys
TIMEOUT: Final = 3.0  # seconds for a question
NO_ANSWER = (aiohttp.ClientError, TimeoutError, ValueError)


class _NotIn(Exception):
    """We are nobody to etcd, or nobody any more: a token of its own holds for some minutes."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are, where etcd asks. `password` gives it anew each time, or raises ValueError."""

    user: str
    password: Callable[[], str]


class EtcdClient:
    """A client of a cluster. `urls` are its members, of which any will do, the best one first."""

    def __init__(
        self, urls: Sequence[str], login: Login | None = None, tls: Callable[[], ssl.SSLContext] | None = None
    ) -> None:
        self.urls = [url.rstrip("/") for url in urls]
        self._login = login
        self._tls = tls
        self._token = ""  # that we got for it
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Raises OSError for a CA that can't be used."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=True if self._tls is None else self._tls()),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def forget(self) -> None:
        """The token may be good no more."""
        self._token = ""

    @asynccontextmanager
    async def stream(
        self, url: str, path: str, body: Mapping[str, Any]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that goes on, from one member. Raises what is among NO_ANSWER."""
        assert self._session is not None
        if self._login is not None and not self._token:
            await self._log_in(url)
        forever = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT)
        async with self._session.post(
            f"{url}/v3/{path}", json=body, timeout=forever, headers=self._credentials()
        ) as response:
            response.raise_for_status()
            yield response

    async def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the first member that has one. Raises Unavailable."""
        reasons = []
        for url in list(self.urls):
            try:
                return await self.ask_one(url, path, body)
            except NO_ANSWER as error:
                reasons.append(f"{url}: {error or type(error).__name__}")
            with contextlib.suppress(ValueError):
                self.urls.append(self.urls.pop(self.urls.index(url)))  # the next one first, from now on
        raise Unavailable(f"no cluster leader: etcd does not answer ({'; '.join(reasons)})")

    async def ask_one(self, url: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._post(url, path, body)
        except _NotIn:
            await self._log_in(url)
        try:
            return await self._post(url, path, body)
        except _NotIn as error:
            raise ValueError(str(error)) from error

    async def _post(self, url: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        session = self._session
        if session is None or session.closed:
            raise Unavailable("the registry is closing")
        async with session.post(f"{url}/v3/{path}", json=body, headers=self._credentials()) as response:
            found = await response.json(content_type=None)
        if response.status == 200 and isinstance(found, dict) and "error" not in found:
            return found
        error = str(found.get("error")) if isinstance(found, dict) else f"status {response.status}"
        if response.status == 401 or "user name is empty" in error:
            raise _NotIn(error)
        if "permission denied" in error:
            error += f"; the user needs a role that may read and write what begins with {PREFIX}"
        raise ValueError(error)

    def _credentials(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}

    async def _log_in(self, url: str) -> None:
        if self._login is None:
            raise ValueError("etcd asks for a user: store: {etcd: […], user: NAME, password: {file: PATH}}")
        self._token = ""
        body = {"name": self._login.user, "password": self._login.password()}
        self._token = str((await self._post(url, "auth/authenticate", body))["token"])
