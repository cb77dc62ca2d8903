"""The registry that runs within the balancer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, Field, model_serializer

from lb.config.fields import Inherited, OrOff, OrShort, address, one_of, parsed
from lb.config.secret import TokenSource, file_path, no_secret
from lb.config.section import AT_KEY, Found, Section, readable
from lb.config.values import Address
from lb.config.written import nearest, quoted

_bind = address("127.0.0.1", least_port=0)


def _url(written: str) -> str:
    parts = urlsplit(written)
    try:
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username is not None or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ValueError(f"must be a URL such as http://127.0.0.1:2379, not {quoted(written)}")
    return written.rstrip("/")


_member = parsed(_url, "a URL", "http://127.0.0.1:2379", pattern="^https?://")
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
        kinds = tuple(cls.model_fields)
        misspelt = any(key not in kinds and nearest(str(key), kinds) for key in data)
        if len(data) != 1 and not misspelt:
            yield (AT_KEY,), "needs one of memory, {file: PATH} or {etcd: [URL]}"
        path, directory = data.get("file"), context.get("directory")
        if isinstance(path, str) and path and isinstance(directory, FilePath):
            data["file"] = type(path)(directory / path)

    @model_serializer
    def _as_written(self) -> Any:
        if self.file is not None:
            return {"file": self.file}
        return {"etcd": self.etcd} if self.etcd else "memory"


class RegistryToken(TokenSource):
    """Where the registry's token is to be read from: one of the two."""

    what: ClassVar = "the registry's token"


class Registry(Section):
    """The embedded registry: services register at it by Consul's API, and pools find them there."""

    store: Annotated[Store, OrShort("memory", _memory.json_schema)] = Field(
        default=Store.model_construct(memory="memory"),
        json_schema_extra={"default": "memory"},
        description="`memory`, `{file: PATH}` or `{etcd: [URL, …]}`.",
    )
    bind: Annotated[Address | None, _bind, OrOff("an address")] = Field(
        default=None,
        description="An address of its own for the API, `host:port`, beside that of the admin API. Anything "
        "but loopback needs a token.",
    )
    token: Annotated[RegistryToken | None, BeforeValidator(no_secret)] = Field(
        default=None,
        description="Where the token is read from that changes have to present. Look-ups need none.",
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        bind = readable(_bind.read, data.get("bind"))
        if bind is not None and not bind.is_loopback and data.get("token") is None:
            yield (
                ("bind",),
                f"{bind} can be reached from other machines, so the registry needs a token: "
                "token: {file: PATH} or {env: NAME}; or bind it to 127.0.0.1",
            )
