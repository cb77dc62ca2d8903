"""What comes before the first request on a listener's connection: the PROXY protocol, and TLS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lb.config.certificates import authority_problem, certificates_in, ciphers_problem, pair_problems
from lb.config.fields import flag, network, one_of, parsed
from lb.config.paths import file_path, from_the_file, usable_path
from lb.config.section import AT_KEY, Found, Section, items_of, peek
from lb.config.shapes import JsonSchema
from lb.config.values import Network
from lb.config.written import as_bool, is_off, shown, suggestion


class Certificate(Section):
    """A certificate and its key, in PEM."""

    required: ClassVar = {"cert": "cert, the file of the certificate", "key": "key, the file of its key"}

    cert: Annotated[str, parsed(file_path, "a path", "tls.crt")] = Field(
        description="The file of the certificate, with those between it and the authority behind it."
    )
    key: Annotated[str, parsed(file_path, "a path", "tls.key")] = Field(
        description="The file of its private key, without a passphrase."
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        from_the_file(data, context, "cert", "key")
        cert, key = usable_path(data.get("cert")), usable_path(data.get("key"))
        if cert and key:
            yield from pair_problems(cert, key)


class Tls(Section):
    """TLS with the clients of a listener. The files are read anew when they change."""

    required: ClassVar = {"certificates": "certificates, as in certificates: [{cert: tls.crt, key: tls.key}]"}

    certificates: tuple[Certificate, ...] = Field(
        min_length=1,
        description="The client's server name (SNI) chooses among them by the names that they are for. The "
        "first one is for all other clients.",
    )
    strict_sni: Annotated[bool, flag()] = Field(
        default=False,
        description="Refuse clients whose server name no certificate is for, or who send none.",
    )
    min_version: Annotated[Literal["1.2", "1.3"], one_of("1.2", "1.3")] = Field(
        default="1.2", description="The oldest version of TLS that is spoken."
    )
    ciphers: Annotated[
        str | None, parsed(str, "ciphers as OpenSSL lists them", "ECDHE+AESGCM", types=(NoneType,))
    ] = Field(
        default=None,
        description="For TLS 1.2, in place of ECDHE with AES-GCM or ChaCha20; as OpenSSL lists them.",
    )
    client_ca: Annotated[str | None, parsed(file_path, "a path", "ca.crt", types=(NoneType,))] = Field(
        default=None, description="Clients must have a certificate of an authority in this file (PEM)."
    )
    client_auth: Annotated[Literal["require", "optional"], one_of("require", "optional")] = Field(
        default="require",
        description="With `client_ca`: whether who has no certificate is refused. A wrong one always is.",
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        from_the_file(data, context, "client_ca")
        authority = usable_path(data.get("client_ca"))
        problem = authority_problem(authority) if authority else None
        if problem:
            yield ("client_ca",), problem
        if data.get("client_ca") is None and "client_auth" in data:
            yield ("client_auth", AT_KEY), "needs client_ca: the authority that clients are certified by"
        ciphers = data.get("ciphers")
        problem = ciphers_problem(str(ciphers)) if isinstance(ciphers, str) else None
        if problem:
            yield ("ciphers",), problem
        yield from _never_used(data, context.get("directory"))


def _never_used(data: Mapping[str, Any], directory: object) -> Iterator[Found]:
    """Certificates for the same names with the same kind of key: only one of them could be shown."""
    seen: dict[object, int] = {}
    for number, pair in items_of(data.get("certificates")):
        path = usable_path(peek(pair, "cert"))
        try:
            full = str(directory / path) if isinstance(directory, FilePath) else path
            own = certificates_in(full)[0] if path else None
        except ValueError:
            continue  # which the certificate tells itself
        if own is not None:
            first = seen.setdefault((frozenset(own.names), own.key), number)
            if first != number:
                yield (
                    ("certificates", number),
                    f"is for the same names as certificates[{first}], with the same kind of key ({own.key})",
                )


class ProxyProtocol(Section):
    """The PROXY protocol, by which a proxy in front says whose connection it passes on."""

    model_config = ConfigDict(populate_by_name=True)

    senders: tuple[Annotated[Network, network()], ...] = Field(
        default=(),
        alias="from",
        description="Networks or addresses that must send it. Others are clients of their own, and may not. "
        "If left out, every connection must begin with it.",
    )


class OrTrue:
    """A section that `true` turns on with its defaults, and `false` or `off` turns off."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: object, inner: core_schema.ValidatorFunctionWrapHandler) -> object:
            if value is None or is_off(value):
                return None
            if as_bool(value):
                return inner({})
            if not isinstance(value, Mapping | Section):
                hint = suggestion("true") if value in ("yes", "v1", "v2", "required") else ""
                raise ValueError(f"must be true, false or a mapping, not {shown(value)}{hint}")
            return inner(value)

        return core_schema.no_info_wrap_validator_function(read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {"anyOf": [{"enum": [True, False, "on", "off"]}, handler(schema)]}
