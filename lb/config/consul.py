"""The source `consul` in the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from lb.config.fields import flag, parsed, text
from lb.config.paths import file_path, from_the_file
from lb.config.secret import TokenSource, no_secret
from lb.config.section import Found
from lb.config.shapes import Inherited
from lb.config.source import TrustedSection
from lb.config.urls import service_url


class ConsulToken(TokenSource):
    """Where the token for Consul is to be read from: one of the two."""

    what: ClassVar = "the token for Consul"


_service = text("the name of a service", r"[A-Za-z0-9._~-]{1,255}", "greeter")
_word = text("text without spaces", r"[!-~]{1,255}", "v2")


class ConsulSection(TrustedSection):
    """The healthy instances of a service, as a Consul agent knows them."""

    required: ClassVar = {"service": "a service, as in service: greeter"}

    url: Annotated[str, service_url("http://127.0.0.1:8500", with_path=True)] = Field(
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
        from_the_file(data, context, "ca")
        if isinstance(data.get("token"), Mapping):
            data["token"] = dict(data["token"])
            from_the_file(data["token"], context, "file")
        yield from ()

    @property
    def about(self) -> str:
        return f"{self.service} at {self.url}"
