"""The kinds of fields: how each is read from what is written, its words when wrong, and its JSON Schema.

A model names one in an annotation: `Annotated[float, duration(more_than=0)]`. A value that is of the right
Python type already is taken as well, so that models can be built in code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from lb.config.section import Found, refusal
from lb.config.shapes import JsonSchema, Written
from lb.config.values import (
    Address,
    StatusSet,
    format_duration,
    format_percentage,
    format_size,
    joined_statuses,
    parse_address,
    parse_bind,
    parse_duration,
    parse_network,
    parse_percentage,
    parse_size,
    parse_statuses,
)
from lb.config.written import (
    as_bool,
    as_float,
    as_int,
    did_you_mean,
    is_nothing,
    quoted,
    shown,
    suggestion,
)

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", re.ASCII)
"""A field name or a method (RFC 9110, section 5.6.2)."""


# --- numbers ---

_NONE = r"0+(\.0+)?"


def whole(least: int, most: int, *words: str) -> Written:
    """A whole number within bounds, both included, or one of a few words that stand for one."""

    def read(value: object) -> int | str:
        number = as_int(value)
        if number is not None and least <= number <= most:
            return number
        if value in words:
            return str(value)
        near = did_you_mean(value, words) if isinstance(value, str) else ""
        listed = " or ".join((f"a whole number from {least} to {most}", *words))
        raise ValueError(f"must be {listed}, not {shown(value)}{near}")

    schema: JsonSchema = {"type": "integer", "minimum": least, "maximum": most}
    return Written(read, {"anyOf": [schema, {"enum": list(words)}]} if words else schema)


def number(least: float = 0, more_than: float | None = None, most: float = 1e9) -> Written:
    """A number within bounds, the lower one included or not, the upper one always."""
    bounds = f"from {least:g} to {most:g}" if more_than is None else f"above {more_than:g}, up to {most:g}"

    def read(value: object) -> float:
        found = as_float(value)
        if found is None or not least <= found <= most or (more_than is not None and found <= more_than):
            raise ValueError(f"must be a number {bounds}, not {shown(value)}")
        return found

    lower = {"minimum": least} if more_than is None else {"exclusiveMinimum": more_than}
    return Written(read, {"type": "number", "maximum": most} | lower)


def duration(least: float = 0, more_than: float | None = None, most: float = 8760 * 3600) -> Written:
    """Seconds in the model; `250ms`, `5s`, `1m`, `1h` in the file. A year at most."""

    def read(value: object) -> float:
        if isinstance(value, str) and not is_nothing(value):
            seconds = parse_duration(value)
        elif type(value) in (int, float):
            seconds = float(value)  # type: ignore[arg-type]
        else:
            raise ValueError(f"must be a duration such as 250ms, 5s or 1m, not {shown(value)}")
        if more_than is not None and not seconds > more_than:
            raise ValueError(f"must be more than {format_duration(more_than)}")
        if seconds < least:
            raise ValueError(f"must be at least {format_duration(least)}, not {shown(value)}")
        if not seconds <= most:
            raise ValueError(f"must be at most {format_duration(most)}, not {shown(value)}")
        return seconds

    more = rf"(?!{_NONE}[a-z])" if least or more_than is not None else ""
    pattern = rf"^{more}[0-9]+(\.[0-9]+)?(ms|s|m|h)$"
    schema = {"type": "string", "title": "duration", "pattern": pattern, "examples": ["250ms", "5s", "1m"]}
    return Written(read, schema, format_duration)


def size(least: int, most: int) -> Written:
    """Bytes; `64KiB` or a plain number in the file."""

    def read(value: object) -> int:
        number = as_int(value)
        if number is None:
            if not isinstance(value, str) or is_nothing(value):
                raise ValueError(
                    f"must be a size such as 64KiB, 1MiB or a number of bytes, not {shown(value)}"
                )
            number = parse_size(value)
        if not least <= number <= most:
            bounds = f"{format_size(least)} to {format_size(most)}"
            raise ValueError(f"must be a size from {bounds}, not {shown(value)}")
        return number

    text = {"type": "string", "pattern": "^(0|[1-9][0-9]*)(B|KiB|MiB|GiB)?$"}
    number = {"type": "integer", "minimum": least, "maximum": most}
    return Written(read, {"title": "size", "anyOf": [text, number], "examples": ["64KiB"]}, format_size)


def percentage(more_than_none: bool = False) -> Written:
    """A share from 0 to 1 in the model; `20%` in the file."""

    def read(value: object) -> float:
        if isinstance(value, str) and not is_nothing(value):
            share = parse_percentage(value)
        elif type(value) in (int, float):
            share = float(value)  # type: ignore[arg-type]
        else:
            raise ValueError(f"must be a percentage such as 20%, not {shown(value)}")
        if more_than_none and not share > 0:
            raise ValueError("must be more than 0%")
        if not 0 <= share <= 1:
            raise ValueError(f"must be a share from 0 to 1, not {shown(value)}")
        return share

    more = rf"(?!{_NONE}%)" if more_than_none else ""
    pattern = rf"^{more}(100(\.0{{1,6}})?|[0-9]{{1,2}}(\.[0-9]{{1,6}})?)%$"
    schema = {"type": "string", "title": "percentage", "pattern": pattern, "examples": ["20%"]}
    return Written(read, schema, format_percentage)


# --- booleans and words ---


_YES_AND_NO = {"yes": "true", "y": "true", "no": "false", "n": "false"}


def flag() -> Written:
    """true or false; on and off say the same."""

    def read(value: object) -> bool:
        found = as_bool(value)
        if found is None:
            better = _YES_AND_NO.get(value.lower()) if isinstance(value, str) else None
            hint = suggestion(better) if better else ""
            raise ValueError(f"must be true or false, not {shown(value)}{hint}")
        return found

    return Written(read, {"enum": [True, False, "on", "off"]})


def one_of(*words: str) -> Written:
    """One of a few words."""

    def read(value: object) -> str:
        if value not in words:
            near = did_you_mean(value, words) if isinstance(value, str) else ""
            listed = " or ".join(words)
            raise ValueError(f"must be {listed}, not {shown(value)}{near}")
        return str(value)

    return Written(read, {"enum": list(words)})


def one_of_numbers(*numbers: int) -> Written:
    """One of a few whole numbers."""

    def read(value: object) -> int:
        number = as_int(value)
        if number not in numbers:
            listed = ", ".join(map(str, numbers[:-1]))
            raise ValueError(f"must be {listed} or {numbers[-1]}, not {shown(value)}")
        return int(number)

    return Written(read, {"enum": list(numbers)})


def text_of(value: object, what: str) -> str:
    """The text as written, with or without quotes; a number or a boolean is text as well here."""
    if not isinstance(value, str) or is_nothing(value):
        raise ValueError(f"must be {what}, not {shown(value)}")
    return str(value)


def parsed(
    parse: Callable[[str], Any], what: str, example: str, types: tuple[type, ...] = (), **schema: Any
) -> Written:
    """Text that `parse` understands.

    `types` are those that the value may have already in code; what JSON Schema can say more is added to it.
    """

    def read(value: object) -> Any:
        if not isinstance(value, str) and isinstance(value, types):
            return value
        return parse(text_of(value, what))

    return Written(read, {"type": "string", "title": what, "examples": [example]} | schema, str)


def text(what: str, pattern: str, example: str, types: tuple[type, ...] = (), **schema: Any) -> Written:
    """Text of a pattern, which `what` puts in words."""
    compiled = re.compile(pattern, re.ASCII)

    def parse(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"must be {what}, not {quoted(value)}")
        return value

    return parsed(parse, what, example, types, pattern=f"^({pattern})$", **schema)


_ADDRESS = r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}"
_OR_SOCKET = rf"^({_ADDRESS}|unix:/.*[^/])$"


def address(default_host: str, least_port: int) -> Written:
    """`host:port`, where port 0, if it may be, is a free one. The default host is what a message suggests to
    who wrote the port alone."""

    def parse(value: str) -> Address:
        found = parse_address(value, default_host)
        if found.port < least_port:
            raise ValueError(f"must have a port from {least_port} to 65535, not {found.port}")
        return found

    return parsed(parse, "host:port", f"{default_host}:8080", types=(Address,), pattern=f"^{_ADDRESS}$")


def host_or_socket(default_host: str, least_port: int) -> Written:
    """`host:port`, or `unix:` and the path of a socket."""

    def parse(value: str) -> Address:
        found = parse_bind(value, default_host)
        if not found.path and found.port < least_port:
            raise ValueError(f"must have a port from {least_port} to 65535, not {found.port}")
        return found

    what = "host:port or unix:PATH"
    return parsed(parse, what, f"{default_host}:8080", types=(Address,), pattern=_OR_SOCKET)


def network() -> Written:
    """An IP network or a single address."""
    types = (IPv4Network, IPv6Network)
    return parsed(parse_network, "an IP network or address", "10.0.0.0/8", types=types)


def proxy() -> Written:
    """A network or an address of proxies, or `unix`: whoever comes in at a unix socket."""

    def parse(value: str) -> IPv4Network | IPv6Network | str:
        return "unix" if value in ("unix", "unix:") else parse_network(value)

    types = (IPv4Network, IPv6Network)
    return parsed(parse, "an IP network or address, or unix", "10.0.0.0/8", types=types)


def statuses(first: int = 1) -> Written:
    """A set of HTTP statuses, as text or as a list. The first is the lowest class: 4 is for errors alone."""

    what = "statuses such as 200-399" if first == 1 else "statuses such as 502-504"

    def read_one(value: object) -> StatusSet:
        found = parse_statuses(text_of(str(value) if type(value) is int else value, what))
        if any(low < first * 100 for low, _ in found.ranges):
            raise ValueError(f"must be statuses from {first}00 to 599, not {shown(value)}")
        return found

    def read(value: object) -> StatusSet:
        if isinstance(value, StatusSet):
            return value
        if not isinstance(value, list | tuple):
            return read_one(value)
        ranges: list[tuple[int, int]] = []
        problems: list[Found] = []
        for number, item in enumerate(value):
            try:
                ranges += read_one(item).ranges
            except ValueError as error:
                problems.append(((number,), str(error)))
        if problems:
            raise refusal(what, problems)
        if not ranges:
            raise ValueError("needs at least one")
        return joined_statuses(ranges)

    one = f"[{first}-5][0-9]{{2}}(-[{first}-5][0-9]{{2}})?"
    text: JsonSchema = {"type": "string", "pattern": f"^{one}( *, *{one})*$"}
    number: JsonSchema = {"type": "integer", "minimum": first * 100, "maximum": 599}
    several = {"type": "array", "minItems": 1, "items": {"anyOf": [text, number]}}
    return Written(read, {"title": what, "anyOf": [text, number, several]}, str)
