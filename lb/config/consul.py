"""The source `consul` in the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from lb.config.fields import Inherited, flag, one_of, parsed, text
from lb.config.secret import TokenSource, file_path, no_secret
from lb.config.section import Found
from lb.config.source import SourceSection, beside
from lb.config.values import is_visible
from lb.config.written import quoted


class ConsulToken(TokenSource):
    """Where the token for Consul is to be read from: one of the two."""

    what: ClassVar = "the token for Consul"


def _url(written: str) -> str:
    try:
        parts = urlsplit(written)
        parts.port  # noqa: B018  raises for what is no port
    except ValueError as error:
        raise ValueError(f"must be a URL, not {quoted(written)}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_visible(written):
        raise ValueError(f"must be a URL such as http://127.0.0.1:8500, not {quoted(written)}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must be a URL without a user, ? and #")
    return written.rstrip("/")


def _service_name(written: str) -> str:
    if not _SERVICE.fullmatch(written):
        raise ValueError(f"must be the name of a service, not {quoted(written)}")
    return written


_SERVICE = re.compile(r"[A-Za-z0-9._~-]{1,255}", re.ASCII)
_service = parsed(_service_name, "the name of a service", "greeter", pattern=f"^{_SERVICE.pattern}$")
_word = text("text without spaces", r"[!-~]{1,255}", "v2")


class ConsulSection(SourceSection):
    """The healthy instances of a service, as a Consul agent knows them."""

    required: ClassVar = {"service": "a service, as in service: greeter"}

    on_empty: Annotated[Literal["keep", "accept"], one_of("keep", "accept")] = Field(
        default="accept",
        description="What an empty answer after a full one does: `keep` stays with the last backends, "
        "`accept` leaves the pool without them.",
    )
    url: Annotated[str, parsed(_url, "a URL", "http://127.0.0.1:8500", pattern="^https?://")] = Field(
        default="http://127.0.0.1:8500", description="Where the agent is: http or https."
    )
    service: Annotated[str, _service] = Field(description="The name of the service.")
    datacenter: Annotated[str | None, _word, Inherited()] = Field(
        default=None, description="Of which datacenter. The agent's own if left out."
    )
    tags: tuple[Annotated[str, _word], ...] = Field(
        default=(), description="Only instances that have all of these tags."
    )
    passing: Annotated[bool, flag()] = Field(
        default=True, description="Leave out instances whose checks warn. Critical ones always are."
    )
    token: Annotated[ConsulToken | None, BeforeValidator(no_secret)] = Field(
        default=None,
        description="Where the token is read from. Read anew for each question, so that it can be renewed.",
    )
    ca: Annotated[str | None, parsed(file_path, "a path", "/etc/consul/ca.pem", types=(NoneType,))] = Field(
        default=None,
        description="A file with the certificates to trust, for https. The system's if left out.",
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        beside(data, "ca", context)
        if isinstance(data.get("token"), Mapping):
            data["token"] = dict(data["token"])
            beside(data["token"], "file", context)
        yield from ()

    @property
    def about(self) -> str:
        return f"{self.service} at {self.url}"
