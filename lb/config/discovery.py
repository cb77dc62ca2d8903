"""Sources: where a pool's backends come from at run time.

For another kind of source: a section here or in a file of its own, a field in `DiscoverySource`, and a line
in `lb/sources.py`, which makes a source of the section.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_serializer

from lb.config.consul import ConsulSection
from lb.config.fields import duration, one_of, parsed, whole
from lb.config.fields import text as pattern_text
from lb.config.paths import file_path, from_the_file
from lb.config.resilience import Timeout
from lb.config.section import AT_KEY, Found, Section, readable
from lb.config.shapes import Inherited, OrOff, OrShort
from lb.config.source import SourceSection, TrustedSection
from lb.config.values import Address, parse_address, parse_host
from lb.config.written import quoted


def _backends_file(written: str) -> str:
    if not written.isprintable() or written.endswith("/"):
        raise ValueError(f"must be the path of a file, not {quoted(written)}")
    return file_path(written)


_backends_path = parsed(_backends_file, "a path", "backends.yaml", pattern="[^/]$")


class FileSection(SourceSection):
    """A file with a list of backends, looked at for changes."""

    required: ClassVar = {"path": "a path, as in path: backends.yaml"}

    path: Annotated[str, _backends_path] = Field(
        description="YAML or JSON: a list of what may stand under `backends`. Relative to the configuration "
        "file."
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        from_the_file(data, context, "path")
        yield from ()

    @property
    def about(self) -> str:
        return self.path


def _dns_name(written: str) -> str:
    name = parse_host(written)
    if ":" in name or name.replace(".", "").isdecimal():
        raise ValueError(f"must be a name, not an address; {quoted(written)} can stand under backends")
    return name


def _server(written: str) -> Address:
    """A name server: an IP address, with a port where it isn't 53."""
    found = None
    for text in (written, f"{written}:53", f"[{written}]:53"):
        try:
            found = parse_address(text)
            ip_address(found.host)
            return found
        except ValueError:
            continue
    raise ValueError(f"must be the IP address of a name server, as in 127.0.0.1:53, not {quoted(written)}")


_name = parsed(_dns_name, "a host name", "greeter.internal")
_server_field = parsed(_server, "an IP address or host:port", "127.0.0.1:53", types=(Address,))


class DnsSection(SourceSection):
    """The addresses of a name, or the servers that its SRV records name. Asked for anew when their time to
    live is over."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"type": {"const": "SRV"}}, "required": ["type"]},
            "then": {"properties": {"port": False}},
            "else": {"required": ["port"]},
        }
    )
    required: ClassVar = {"name": "a name, as in name: greeter.internal"}

    max_stale: Annotated[float | None, duration(more_than=0), OrOff("a duration")] = Field(
        default=86400.0,
        description="So long the last backends are kept where no good answer comes. With `off`, for ever.",
    )
    name: Annotated[str, _name] = Field(
        description="The name. One without a dot at its end is looked for in the search domains of "
        "`resolv.conf` too."
    )
    type: Annotated[Literal["address", "A", "AAAA", "SRV"], one_of("address", "A", "AAAA", "SRV")] = Field(
        default="address",
        description="Which records: `address` is A and AAAA. With `SRV`, the priority becomes the tier, and "
        "port and weight are those of the record.",
    )
    port: Annotated[int | None, whole(1, 65535), Inherited()] = Field(
        default=None, description="The port of all of them. Must be given, but not with SRV."
    )
    resolver: tuple[Annotated[Address, _server_field], ...] = Field(
        default=(),
        description="Name servers to ask, as in `[127.0.0.1:5353]`; the second where the first one fails. "
        "Those of `resolv.conf` if left out.",
    )
    timeout: Timeout = Field(default=5.0, description="So long an answer may take, with all attempts.")
    min_ttl: Annotated[float, duration(least=0.1)] = Field(
        default=1.0, description="An answer holds for at least so long, whatever its time to live is."
    )
    max_ttl: Annotated[float, duration(least=0.1)] = Field(
        default=300.0, description="And for so long at most."
    )
    linger: Annotated[float | None, duration(more_than=0), OrOff("a duration")] = Field(
        default=None,
        description="A backend that is named no more stays for so long: for servers that name only some of "
        "many, and others each time.",
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if data.get("type") == "SRV" and "port" in data:
            yield (
                ("port", AT_KEY),
                "means nothing with type SRV, whose records have their own; leave port out",
            )
        elif data.get("type", "address") in ADDRESS_TYPES and "port" not in data:
            yield (AT_KEY,), "needs a port, as in port: 8080, or type: SRV"
        least = readable(cls._bound.read, data.get("min_ttl", 1.0))
        most = readable(cls._bound.read, data.get("max_ttl", 300.0))
        if least is not None and most is not None and least > most:
            yield ("min_ttl",) if "min_ttl" in data else ("max_ttl",), "min_ttl can't be more than max_ttl"

    _bound: ClassVar = duration(least=0.1)

    @property
    def about(self) -> str:
        return f"{self.name} SRV" if self.port is None else f"{self.name}:{self.port}"


ADDRESS_TYPES = ("address", "A", "AAAA")


_service = pattern_text(
    "the name of a service: 1 to 128 visible ASCII characters without spaces", r"[!-~]{1,128}", "greeter"
)


class RegistrySection(TrustedSection):
    """The instances of a service that have registered at this balancer, or at one that shares its table."""

    required: ClassVar = {"service": "a service, as in service: greeter"}

    service: Annotated[str, _service] = Field(description="The name that the instances register with.")
    tags: tuple[Annotated[str, parsed(str, "a tag", "blue")], ...] = Field(
        default=(), description="Only instances that have every one of these tags."
    )

    @property
    def about(self) -> str:
        return self.service


_kubernetes_name = pattern_text("a name in Kubernetes", r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", "greeter")


def _service_port(written: str) -> str:
    if written.isascii() and written.isdecimal() and not written.startswith("0") and int(written) <= 65535:
        return written
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", written) or not re.search("[a-z]", written):
        raise ValueError(f"must be the name of a port, or its number from 1 to 65535, not {quoted(written)}")
    return written


class KubernetesSection(TrustedSection):
    """The endpoints of a Service, by the EndpointSlices of a cluster's API server."""

    required: ClassVar = {"service": "a Service, as in service: greeter"}

    service: Annotated[str, _kubernetes_name] = Field(description="The Service's name.")
    namespace: Annotated[str, _kubernetes_name] = Field(
        default="", description="Its namespace: our own, or that of the kubeconfig's context, if left out."
    )
    port: Annotated[str, parsed(_service_port, "a port's name or number", "http")] = Field(
        default="",
        description="The port's name in the Service, or the number that the pods listen on. May be left out "
        "where the Service has only one.",
    )
    kubeconfig: Annotated[str, parsed(_backends_file, "a path", "/etc/lb/kubeconfig")] = Field(
        default="",
        description="How to reach the API server. If left out: as the ServiceAccount of our pod, or by "
        "`KUBECONFIG`. Relative to the configuration file.",
    )
    context: Annotated[str, parsed(str, "the name of a context", "staging")] = Field(
        default="", description="The kubeconfig's context; its current one if left out."
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        from_the_file(data, context, "kubeconfig")
        yield from ()

    @property
    def about(self) -> str:
        return f"{self.namespace}/{self.service}" if self.namespace else self.service


class DiscoverySource(Section):
    """One source: a mapping of its kind to what it has to know."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    file: Annotated[FileSection | None, OrShort("path", _backends_path.json_schema)] = Field(
        default=None, description="A file with a list of backends, looked at for changes."
    )
    dns: DnsSection | None = Field(default=None, description="The addresses of a name, or its SRV records.")
    registry: Annotated[RegistrySection | None, OrShort("service", _service.json_schema)] = Field(
        default=None, description="The instances of a service in the embedded registry."
    )
    kubernetes: KubernetesSection | None = Field(
        default=None, description="The endpoints of a Service, by its EndpointSlices."
    )

    consul: ConsulSection | None = Field(
        default=None, description="The healthy instances of a service, as a Consul agent knows them."
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if len(data) != 1 and not cls.misspelt(data):
            yield (AT_KEY,), f"needs exactly one of {', '.join(cls.written_keys())}"

    @property
    def kind(self) -> str:
        """Which one it is."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def section(self) -> SourceSection:
        """What is said of it."""
        found = getattr(self, self.kind)
        assert isinstance(found, SourceSection)
        return found

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {self.kind: self.section}
