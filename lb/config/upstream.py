"""How backends are reached, and what they are told of the client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lb.config.fields import flag, one_of, parsed
from lb.config.section import AT_KEY, Found, Section
from lb.config.shapes import OFF, JsonSchema
from lb.config.values import parse_host
from lb.config.written import as_bool, is_off, quoted


def _file(written: str) -> str:
    if not written or "\0" in written:
        raise ValueError(f"must be the path of a file, not {quoted(written)}")
    return written


def _server_name(written: str) -> str:
    if written.count(":") > 1 and not written.startswith("["):
        written = f"[{written}]"
    if ":" in written and not written.endswith("]"):
        raise ValueError(f"must be a name without a port, not {quoted(written)}")
    return parse_host(written).strip("[]")


_path = parsed(_file, "a path", "/etc/lb/ca.crt", types=(NoneType,))
_name = parsed(_server_name, "a host name", "greeter.internal", types=(NoneType,))


class OnOrMapping:
    """A section that `on` turns on with all its defaults, and `off` off."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: object, inner: core_schema.ValidatorFunctionWrapHandler) -> object:
            if value is None or is_off(value):
                return None
            return inner({} if as_bool(value) else value)

        return core_schema.no_info_wrap_validator_function(read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {"anyOf": [handler(schema), {"enum": ["on", True]}, OFF]}


class PoolTls(Section):
    """TLS toward the backends. Their certificates are verified: by whom they are, and for which name."""

    server_name: Annotated[str | None, _name] = Field(
        default=None,
        description="The name that a backend has to prove, and is asked for (SNI). The host of its address "
        "if left out, `localhost` at a unix socket.",
    )
    ca: Annotated[str | None, _path] = Field(
        default=None,
        description="A PEM file with the certificates that are trusted. Those of the system if left out.",
    )
    cert: Annotated[str | None, _path] = Field(
        default=None,
        description="A PEM file with our own certificate, for backends that want one, and those between it "
        "and its CA.",
    )
    key: Annotated[str | None, _path] = Field(
        default=None, description="A PEM file with its private key, not encrypted."
    )
    min_version: Annotated[Literal["1.2", "1.3"], one_of("1.2", "1.3")] = Field(
        default="1.2", description="The oldest version of TLS that is spoken."
    )
    insecure_skip_verify: Annotated[bool, flag()] = Field(
        default=False,
        description="Take any certificate. Whoever is on the way can then read and change everything.",
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if data.get("cert") is not None and data.get("key") is None:
            yield ("cert", AT_KEY), "needs key too, the file with its private key"
        if data.get("key") is not None and data.get("cert") is None:
            yield ("key", AT_KEY), "needs cert too, the certificate that it belongs to"
        if as_bool(data.get("insecure_skip_verify")) and data.get("ca") is not None:
            yield (
                ("insecure_skip_verify", AT_KEY),
                "nothing is verified then, and ca means nothing; leave one of them out",
            )


class Forwarded(Section):
    """Which fields say who the client is: X-Forwarded-For, -Proto and -Host, or Forwarded (RFC 7239)."""

    names: ClassVar = ("x-forwarded", "rfc7239")

    read: Annotated[Literal["either", "x-forwarded", "rfc7239"], one_of("either", *names)] = Field(
        default="either",
        description="What the trusted proxies write. With `either`, Forwarded counts only in a request "
        "without any X-Forwarded-For, -Proto, -Host or X-Real-IP; never are the two mixed. Say `rfc7239` "
        "where your proxies write Forwarded and let X-Forwarded-* of their clients pass.",
    )
    write: Annotated[Literal["x-forwarded", "rfc7239", "both"], one_of(*names, "both")] = Field(
        default="x-forwarded", description="What the backends get."
    )
