"""The registry that runs within the balancer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_serializer

from lb.config.fields import one_of, parsed
from lb.config.guarded import Guarded, own_address
from lb.config.paths import file_path, from_the_file
from lb.config.secret import TokenSource, no_secret
from lb.config.section import AT_KEY, Found, Section
from lb.config.shapes import Inherited, OrOff, OrShort
from lb.config.urls import service_url
from lb.config.values import Address

_member = service_url("http://127.0.0.1:2379", with_path=False)
_memory = one_of("memory")


class Store(Section):
    """Where the table is kept."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

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

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if len(data) != 1 and not cls.misspelt(data):
            yield (AT_KEY,), "needs one of memory, {file: PATH} or {etcd: [URL]}"
        from_the_file(data, context, "file")

    @model_serializer
    def _as_written(self) -> Any:
        if self.file is not None:
            return {"file": self.file}
        return {"etcd": self.etcd} if self.etcd else "memory"


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
