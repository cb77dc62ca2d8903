"""The registry that runs within the balancer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_serializer

from lb.config.fields import one_of, parsed, text
from lb.config.guarded import Guarded, own_address
from lb.config.paths import file_path, from_the_file
from lb.config.secret import TokenSource, no_secret
from lb.config.section import AT_KEY, Found, Section
from lb.config.shapes import Inherited, OrOff, OrShort
from lb.config.urls import service_url
from lb.config.values import Address

_member = service_url("http://127.0.0.1:2379", with_path=False)
_memory = one_of("memory")
_user = text("a name without spaces", r"[!-~]{1,128}", "lb")


class EtcdPassword(TokenSource):
    """Where the password for etcd is to be read from: one of the two."""

    what: ClassVar = "the password for etcd"


class Store(Section):
    """Where the table is kept."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["memory"]}, {"required": ["file"]}, {"required": ["etcd"]}],
            "dependentRequired": {"user": ["etcd", "password"], "password": ["etcd", "user"], "ca": ["etcd"]},
        }
    )

    memory: Annotated[Literal["memory"] | None, _memory, Inherited()] = Field(
        default=None, description="In the process: instances register anew when it starts."
    )
    file: Annotated[str | None, parsed(file_path, "a path", "/var/lib/lb/registry"), Inherited()] = Field(
        default=None,
        description="In a file, which survives a restart and a crash. Relative to the configuration file.",
    )
    etcd: tuple[Annotated[str, _member], ...] = Field(
        default=(),
        description="In etcd, by the URLs of its members: any number of balancers share one table.",
    )

    user: Annotated[str | None, _user, Inherited()] = Field(
        default=None, description="Who we are to etcd, where it asks: a user with a password."
    )
    password: Annotated[EtcdPassword | None, BeforeValidator(no_secret)] = Field(
        default=None, description="Where the password is read from, anew each time that it is needed."
    )
    ca: Annotated[str | None, parsed(file_path, "a path", "/etc/etcd/ca.pem", types=(NoneType,))] = Field(
        default=None,
        description="A file with the certificates to trust, for https. The system's if left out.",
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if sum(kind in data for kind in ("memory", "file", "etcd")) != 1 and not cls.misspelt(data):
            yield (AT_KEY,), "needs one of memory, {file: PATH} or {etcd: [URL]}"
        elif "etcd" not in data:
            for key in ("user", "password", "ca"):
                if data.get(key) is not None:
                    yield (key, AT_KEY), "is for etcd only"
        elif (data.get("user") is None) != (data.get("password") is None):
            yield (AT_KEY,), "needs both user and password, or neither"
        from_the_file(data, context, "file", "ca")
        if isinstance(data.get("password"), Mapping):
            data["password"] = dict(data["password"])
            from_the_file(data["password"], context, "file")

    @model_serializer
    def _as_written(self) -> Any:
        if self.file is not None:
            return {"file": self.file}
        if not self.etcd:
            return "memory"
        more = {"user": self.user, "password": self.password, "ca": self.ca}
        return {"etcd": self.etcd} | {key: value for key, value in more.items() if value is not None}


class RegistryToken(TokenSource):
    """Where the registry's token is to be read from: one of the two."""

    what: ClassVar = "the registry's token"


class Registry(Guarded):
    """The embedded registry: services register at it by Consul's API, and pools find them there."""

    what: ClassVar = "the registry"

    store: Annotated[Store, OrShort("memory", _memory.json_schema)] = Field(
        default=Store.model_construct(memory="memory"),
        json_schema_extra={"default": "memory"},
        description="`memory`, `{file: PATH}` or `{etcd: [URL, …]}`.",
    )
    bind: Annotated[Address | None, own_address, OrOff("an address")] = Field(
        default=None,
        description="An address of its own for the API, `host:port`, beside that of the admin API. Anything "
        "but loopback needs a token.",
    )
    token: Annotated[RegistryToken | None, BeforeValidator(no_secret)] = Field(
        default=None,
        description="Where the token is read from that changes have to present. Look-ups need none.",
    )
