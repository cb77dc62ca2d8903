"""Sticky sessions: the cookie that brings a client back to its backend."""

from __future__ import annotations

import hmac
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from lb.config.fields import TOKEN, duration, flag, one_of, parsed
from lb.config.secret import TokenSource, no_secret
from lb.config.section import Found, Section
from lb.config.shapes import OrOff
from lb.config.values import is_visible
from lb.config.written import quoted

log = logging.getLogger("lb")

MACHINE_ID = Path("/etc/machine-id")
"""Stays as long as the system is installed, and is to be kept secret: machine-id(5)."""

OWN_SECRET = "LB_STICKY_SECRET"
"""The environment variable that hands a secret made by us to worker processes, and to a successor."""


class SecretSource(TokenSource):
    """Where the secret is to be read from: one of the two."""

    what: ClassVar = "the secret of sticky sessions"


def _cookie_name(written: str) -> str:
    if not TOKEN.fullmatch(written):
        raise ValueError(f"must be the name of a cookie, without spaces, not {quoted(written)}")
    return written


def _cookie_path(written: str) -> str:
    if not written.startswith("/") or not is_visible(written) or ";" in written:
        raise ValueError(
            f"must be a path that starts with / and has no spaces and no ;, not {quoted(written)}"
        )
    return written


class Sticky(Section):
    """A cookie brings each client back to the backend that served it first.

    Its value is a keyed hash of the backend's ID: it tells nobody an address, and nobody else can make one.
    """

    required: ClassVar = {"cookie": "the name of a cookie, as in cookie: lb"}

    cookie: Annotated[str, parsed(_cookie_name, "the name of a cookie", "lb")] = Field(
        description="Its name. It is taken out of requests before they go on to a backend."
    )
    secret: Annotated[SecretSource | None, BeforeValidator(no_secret)] = Field(
        default=None,
        description="Where the key of the hash is read from. Balancers that share their clients need the "
        "same one. If left out, it is made of the machine's own ID.",
    )
    max_age: Annotated[float | None, duration(least=1), OrOff("a duration")] = Field(
        default=None,
        description="So long the client keeps it, from when it got it. With `off`, until the browser closes.",
    )
    path: Annotated[str, parsed(_cookie_path, "a path", "/", pattern="^/")] = Field(
        default="/", description="The client sends it with requests below this path."
    )
    secure: Annotated[bool, flag()] = Field(
        default=False, description="The client sends it over TLS only. Turn it on where all clients use TLS."
    )
    http_only: Annotated[bool, flag()] = Field(default=True, description="Scripts in the page can't read it.")
    same_site: Annotated[Literal["lax", "strict", "none"], one_of("lax", "strict", "none")] = Field(
        default="lax",
        description="Whether the client sends it with requests that other sites make: `none` is with all of "
        "them, and needs `secure`.",
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        secure = data.get("secure", False)
        if data.get("same_site") == "none" and secure in (False, "off", "false"):
            yield ("same_site",), "none needs secure: true, or browsers refuse the cookie"

    @property
    def attributes(self) -> str:
        """What follows the cookie's value: RFC 6265, section 4.1."""
        parts = [f"; Path={self.path}"]
        if self.max_age is not None:
            parts.append(f"; Max-Age={round(self.max_age)}")
        if self.secure:
            parts.append("; Secure")
        if self.http_only:
            parts.append("; HttpOnly")
        parts.append(f"; SameSite={self.same_site.title()}")
        return "".join(parts)

    def read_secret(self) -> bytes:
        """The key of the hash. Raises ValueError where it is to be read and can't be.

        Where no one names a secret, it is made of the machine's ID, as machine-id(5) has it: the same for all
        processes of this machine, also after a restart. A container may have none; then it is made up, and
        handed to our worker processes and successors by way of the environment.
        """
        if self.secret is not None:
            return self.secret.read().encode()
        try:
            machine = MACHINE_ID.read_bytes().strip()
        except OSError:
            machine = b""
        if machine:
            return hmac.digest(machine, b"lb sticky sessions", "sha256")
        if OWN_SECRET not in os.environ:
            os.environ[OWN_SECRET] = secrets.token_hex(32)
            log.warning(
                "sticky sessions: this machine has no %s, so that the cookies hold until the next restart; "
                "give them a secret: {file: PATH} or {env: NAME}",
                MACHINE_ID,
            )
        return os.environ[OWN_SECRET].encode()
