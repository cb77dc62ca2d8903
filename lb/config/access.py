"""What a route asks of a request before it goes on, and what it changes in heads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any

from pydantic import ConfigDict, Field, field_serializer

from lb.config.answers import FileText, file_text
from lb.config.fields import TOKEN, flag, parsed, size
from lb.config.section import AT_KEY, HIDDEN, SECRET, Found, Section, items_of, pairs_of, readable
from lb.config.shapes import OrOff, Written
from lb.config.values import Network, is_visible, parse_host, parse_network
from lb.config.written import quoted

_SCALARS = ["string", "number", "boolean"]  # as which text may reach an editor
_NO_OTHERS: dict[str, Any] = {"additionalProperties": False}

# --- addresses ---


def _client_network(written: str) -> Network | str:
    return written if written == "unix" else parse_network(written)


_network = parsed(
    _client_network, "an IP network or address, or unix", "10.0.0.0/8", types=(IPv4Network, IPv6Network)
)
Networks = tuple[Annotated[Any, _network], ...]


def examine_networks(data: Mapping[str, Any]) -> Iterator[Found]:
    """The same one allowed and denied."""
    allowed = {readable(_network.read, each): number for number, each in items_of(data.get("allow"))}
    allowed.pop(None, None)
    for number, each in items_of(data.get("deny")):
        network = readable(_network.read, each)
        if network in allowed:
            yield ("deny", number), f"{network} is allowed too, by allow[{allowed[network]}]"


class RouteLimits(Section):
    """How large a request of this route may be. A listener's smaller limits hold all the same."""

    body: Annotated[int | None, size(1, 2**53 - 1), OrOff("a size")] = Field(
        default=None, description="The body: 413 beyond it."
    )


# --- names and passwords ---


def _realm(written: str) -> str:
    if not written.isascii() or not written.isprintable():
        raise ValueError(f"must be printable ASCII, not {quoted(written)}")
    return written


def _user(written: str) -> str:
    from lb.core.passwords import is_user_name  # here, so that importing the models stays quick

    if not is_user_name(written):
        raise ValueError(f"must be a user's name, without a colon, not {quoted(written)}")
    return written


def _password_hash(value: object) -> str:
    from lb.core.passwords import verifier

    if not isinstance(value, str):
        raise ValueError("must be the hash of a password, as text")
    verifier(value)  # what it says shows nothing of it
    return str(value)


_hash = Written(
    _password_hash,
    {"type": "string", "title": "hash of a password", "examples": ["$2y$12$…"]},
    lambda _: "not shown",
)


class BasicAuth(Section):
    """Lets those in who have a name and its password (RFC 7617): 401 for others."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["file"]}, {"required": ["users"]}]})

    realm: Annotated[str, parsed(_realm, "text", "staff", type=_SCALARS)] = Field(
        default="restricted", description="What browsers show when they ask for the password."
    )
    file: Annotated[FileText | None, file_text("users.htpasswd")] = Field(
        default=None,
        description="A file of lines `NAME:HASH`, as `htpasswd -B` writes them. It is read at the start and "
        "at a reload.",
    )
    users: (
        Mapping[Annotated[str, parsed(_user, "a user's name", "alice")], Annotated[str, _hash, SECRET]] | None
    ) = Field(
        default=None,
        min_length=1,
        description="Or the users themselves, with the hashes of their passwords.",
    )
    pass_on: Annotated[bool, flag()] = Field(
        default=False, description="Whether the backend gets the Authorization header, and so the password."
    )

    @property
    def hashes(self) -> Mapping[str, str]:
        """All users."""
        from lb.core.passwords import read_htpasswd

        if self.file is None:
            return self.users or {}
        return read_htpasswd(self.file.content.decode("utf-8", "replace"))[0]

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if (data.get("file") is None) == (data.get("users") is None):
            yield (AT_KEY,), "needs one of the two: file: PATH or users: {NAME: HASH}"
        found = readable(file_text("").read, data.get("file"))
        if found is not None:
            data["file"] = found  # read once, so that what is judged is what holds
            yield from _examine_users(found)


def _examine_users(file: FileText) -> Iterator[Found]:
    from lb.core.passwords import read_htpasswd

    try:
        users, problems = read_htpasswd(file.content.decode("utf-8"))
    except UnicodeDecodeError:
        yield ("file",), f"{file} is not UTF-8 text"
        return
    for line, words in problems:
        yield ("file",), f"{file}:{line}: {words}"
    if not users and not problems:
        yield ("file",), f"{file} holds no users"


# --- header fields ---

_HOP = frozenset(
    {"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "http2-settings"}
)
_OURS_TO_BACKENDS = _HOP | {"expect", "forwarded", "proxy", "via"}
_OURS_TO_CLIENTS = _HOP | {"x-backend"}


def _why_taken(name: str, taken: frozenset[str]) -> str:
    """Why a field can't be changed; empty if it can. `_` is read as `-` by many a backend."""
    plain = name.lower().replace("_", "-")
    if plain in _HOP:
        return "which says where a message ends or what becomes of the connection"
    if plain in taken or (taken is _OURS_TO_BACKENDS and plain.startswith("x-forwarded-")):
        return "which the balancer writes itself"
    return ""


def _field(taken: frozenset[str], host: bool = False) -> Written:
    def parse(written: str) -> str:
        if not TOKEN.fullmatch(written):
            raise ValueError(f"must be the name of a header, not {quoted(written)}")
        why = _why_taken(written, taken)
        if taken is _OURS_TO_BACKENDS and written.lower() == "host" and not host:
            why = "of which there has to be just one: set it"
        if why:
            raise ValueError(f"can't change {written}, {why}")
        return written

    return parsed(parse, "the name of a header", "x-team", pattern=f"^{TOKEN.pattern}$", type=_SCALARS)


def _value(names: tuple[str, ...]) -> Written:
    def parse(written: str) -> str:
        from lb.core.template import Template

        if written != written.strip() or not is_visible(written.replace(" ", "")) or not written:
            raise ValueError(f"must be visible ASCII, as it stands in the header, not {quoted(written)}")
        Template(written, names)
        return written

    return parsed(parse, "a header value", "{client}", type=_SCALARS)


_FIXED = ("client", "host", "method", "request_id", "scheme", "user")
_ALL = ("client", "host", "method", "path", "query", "request_id", "scheme", "user")
_to_backends, _to_clients = _value(_ALL), _value(_FIXED)


def _values(one: Written) -> Written:
    """A value or a list of them."""

    def read(value: object) -> tuple[str, ...]:
        return tuple(map(one.read, value)) if isinstance(value, list | tuple) else (one.read(value),)

    several = {"type": "array", "minItems": 1, "items": one.json_schema}
    return Written(read, {"title": "a header value", "anyOf": [one.json_schema, several]}, list)


_SET = "Fields with the value that they get, whatever they had."
_ADD = "Fields that are added, beside those of the same name: a value, or a list of them."
_REMOVE = "Fields that are dropped."


class _Changes(Section):
    """Changes of a head: first `remove`, then `set`, then `add`."""

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        for key in ("set", "add"):
            seen: set[str] = set()
            for name, _ in pairs_of(data.get(key)):
                if name.lower() in seen:
                    words = f"the header {quoted(name)} is here twice, since case doesn't matter"
                    yield (key, name, AT_KEY), words
                seen.add(name.lower())


_request_field, _response_field = _field(_OURS_TO_BACKENDS), _field(_OURS_TO_CLIENTS)


_credential = re.compile("auth|cookie|token|secret|key|password", re.IGNORECASE).search
"""Whether a field of this name may well hold what proves to a backend who we are."""


class RequestHeaders(_Changes):
    """Changes of a request's header fields, for the backend: first `remove`, then `set`, then `add`."""

    set: Mapping[Annotated[str, _field(_OURS_TO_BACKENDS, host=True)], Annotated[str, _to_backends]] = Field(
        default_factory=dict,
        description=f"{_SET} `host` is the name that the backend is asked for.",
        json_schema_extra=_NO_OTHERS,
    )
    add: Mapping[Annotated[str, _request_field], Annotated[tuple[str, ...], _values(_to_backends)]] = Field(
        default_factory=dict, description=_ADD, json_schema_extra=_NO_OTHERS
    )
    remove: tuple[Annotated[str, _request_field], ...] = Field(default=(), description=_REMOVE)

    @field_serializer("set", "add", when_used="json")
    def _without_credentials(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: HIDDEN if _credential(name) else value for name, value in fields.items()}

    @property
    def host(self) -> str:
        """The Host that the backend gets in place of the client's; empty if it isn't changed."""
        return next((value for name, value in self.set.items() if name.lower() == "host"), "")

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        yield from super().examine(data, context)
        for name, value in pairs_of(data.get("set")):
            if name.lower() == "host" and isinstance(value, str):
                try:
                    _host_and_port(value)
                except ValueError as error:
                    yield ("set", name), str(error)


def _host_and_port(written: str) -> None:
    host, colon, port = written.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = written, "1"
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536 and len(port) <= 5):
        raise ValueError(f"must end in a port from 1 to 65535, not {quoted(port)}")
    parse_host(host)


class ResponseHeaders(_Changes):
    """Changes of a response's header fields, whoever made it: first `remove`, then `set`, then `add`."""

    set: Mapping[Annotated[str, _response_field], Annotated[str, _to_clients]] = Field(
        default_factory=dict, description=_SET, json_schema_extra=_NO_OTHERS
    )
    add: Mapping[Annotated[str, _response_field], Annotated[tuple[str, ...], _values(_to_clients)]] = Field(
        default_factory=dict, description=_ADD, json_schema_extra=_NO_OTHERS
    )
    remove: tuple[Annotated[str, _response_field], ...] = Field(default=(), description=_REMOVE)


class Headers(Section):
    """Changes of header fields. In values, `{client}`, `{host}`, `{method}`, `{request_id}`, `{scheme}` and
    `{user}` are filled in, for requests also `{path}` and `{query}`; `{{` and `}}` are braces."""

    request: RequestHeaders = Field(
        default=RequestHeaders.model_construct(), description="Of requests, for the backend."
    )
    response: ResponseHeaders = Field(
        default=ResponseHeaders.model_construct(),
        description="Of responses, for the client: those of backends, and our own.",
    )


def examine_request_id(header: str, headers: Any) -> Iterator[Found]:
    """The request's ID may have any name, and is ours under each. `headers` are those of a route."""
    for side, changes in pairs_of(headers):
        for key in ("set", "add"):
            for name, _ in pairs_of(changes.get(key) if isinstance(changes, Mapping) else None):
                if name.lower().replace("_", "-") == header.lower():
                    yield (side, key, name, AT_KEY), _OURS.format(name)
        for number, name in items_of(changes.get("remove") if isinstance(changes, Mapping) else None):
            if isinstance(name, str) and name.lower().replace("_", "-") == header.lower():
                yield (side, "remove", number), _OURS.format(name)


_OURS = "can't change {}, which the balancer writes itself"
