"""The small languages inside the values: durations, sizes, percentages, addresses, networks, statuses.

Each is read by a function that raises ValueError in words for people, and written back by another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from math import inf

from lb.config.written import quoted, suggestion

Network = IPv4Network | IPv6Network

# --- durations ---

_SECONDS = {"h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h)", re.ASCII)
_LOOSE_AMOUNT = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]{0,12})\s*", re.ASCII)
_LOOSE_UNITS = {
    "ms": ("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"),
    "s": ("", "s", "sec", "secs", "second", "seconds"),
    "m": ("m", "min", "mins", "minute", "minutes"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
}


def parse_duration(text: str) -> float:
    """Seconds, of `250ms`, `1.5s`, `1m` or `1h`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"must be a duration such as 250ms, 5s or 1m, not {quoted(text)}"
            + _nearest_amount(text, _LOOSE_UNITS)
        )
    amount, unit = match.groups()
    # Divided, not multiplied by 0.001, so that 3ms is the float 0.003.
    return float(amount) / 1000 if unit == "ms" else float(amount) * _SECONDS[unit]


def format_duration(seconds: float) -> str:
    """The shortest way to write it that is read back as the very same number. Forever is off."""
    if seconds == inf:
        return "off"
    for unit, length in _SECONDS.items():
        if seconds and seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    millis = f"{round(seconds * 1000)}ms"
    if 0 < seconds < 1 and parse_duration(millis) == seconds:
        return millis
    return f"{Decimal(repr(seconds)).normalize():f}s"


def _nearest_amount(text: str, units: dict[str, tuple[str, ...]]) -> str:
    match = _LOOSE_AMOUNT.fullmatch(text)
    if match is not None:
        amount, word = match.groups()
        for unit, words in units.items():
            if word.lower() in words:
                return suggestion(amount + unit)
    return ""


# --- sizes ---

_SIZES = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
_SIZE = re.compile(r"(0|[1-9][0-9]{0,15})(B|KiB|MiB|GiB)?", re.ASCII)
_LOOSE_SIZES = {
    "B": ("b", "byte", "bytes"),
    "KiB": ("k", "kb", "ki", "kib"),
    "MiB": ("m", "mb", "mi", "mib"),
    "GiB": ("g", "gb", "gi", "gib"),
}


def parse_size(text: str) -> int:
    """Bytes, of `64KiB`, `1MiB`, `2GiB` or a plain number."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"must be a size such as 64KiB, 1MiB or a number of bytes, not {quoted(text)}"
            + _nearest_amount(text, _LOOSE_SIZES)
        )
    return int(match[1]) * _SIZES[match[2] or "B"]


def format_size(size: int) -> str:
    """In the largest unit that it is a multiple of."""
    for unit, length in _SIZES.items():
        if size and size % length == 0 and unit != "B":
            return f"{size // length}{unit}"
    return str(size)


# --- percentages ---

_PERCENTAGE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%", re.ASCII)
_LOOSE_PERCENTAGE = re.compile(
    r"\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*(%|percent|per cent|)\s*", re.ASCII | re.IGNORECASE
)


def parse_percentage(text: str) -> float:
    """A share from 0 to 1, of `20%` or `12.5%`."""
    match = _PERCENTAGE.fullmatch(text)
    if match is None:
        raise ValueError(f"must be a percentage such as 20%, not {quoted(text)}{_nearest_share(text)}")
    if Decimal(match[1]) > 100:
        raise ValueError(f"must be a percentage from 0% to 100%, not {quoted(text)}")
    return float(Decimal(match[1]) / 100)


def format_percentage(share: float) -> str:
    """The way to write it that is read back as the very same number."""
    return f"{(Decimal(repr(share)) * 100).normalize():f}%"


def _nearest_share(text: str) -> str:
    """A number alone is a share of 1 below 1, and a percentage above; 1 could be either."""
    match = _LOOSE_PERCENTAGE.fullmatch(text)
    if match is None or float(match[1]) > 100 or (not match[2] and float(match[1]) == 1):
        return ""
    share_of_one = not match[2] and float(match[1]) < 1
    return suggestion(format_percentage(float(match[1])) if share_of_one else f"{match[1]}%")


# --- addresses ---

_UNIX = "unix:"
_LONGEST_UNIX_PATH = 107
"""Bytes: `sun_path` of Linux has 108, and the last one is a null (unix(7))."""

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)", re.ASCII)
_PORT = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):([^:]*)")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to connect: a host and a port, or the path of a unix socket.

    An IPv6 host has no brackets here; `str()` puts them back. With a path, the host is empty and the port 0.
    """

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return _UNIX + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path:
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_address(text: str, default_host: str = "127.0.0.1") -> Address:
    """Of `127.0.0.1:8080`, `[::1]:8080` or `localhost:8080`.

    The default host is what a message suggests to who wrote the port alone.
    """
    if text.startswith((_UNIX + "/", _UNIX + "@")):
        raise ValueError("must be host:port: a unix socket can't stand here")
    if "://" in text:
        scheme, _, rest = text.partition("://")
        raise ValueError(
            f"must be host:port alone, without {quoted(scheme + '://')}"
            + _valid_suggestion(re.split(r"[/?#]", rest)[0])
        )
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None:
        return _no_host_and_port(text, default_host)
    host, port = match.groups()
    if host in ("", "*"):
        raise ValueError(f"has no host{_valid_suggestion(f'{default_host}:{port}')}")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"must end in a port from 0 to 65535, not {quoted(port)}")
    return Address(parse_host(host).strip("[]"), int(port))


def _no_host_and_port(text: str, default_host: str) -> Address:
    if _PORT.fullmatch(text):
        raise ValueError(f"must be host:port, not a port alone{_valid_suggestion(f'{default_host}:{text}')}")
    if text.count(":") > 1 and "[" not in text:
        raise ValueError(f"must have an IPv6 address in brackets, as in [::1]:8080, not {quoted(text)}")
    raise ValueError(f"must be host:port, as in {default_host}:8080, not {quoted(text)}")


def _valid_suggestion(text: str) -> str:
    try:
        return suggestion(str(parse_address(text)))
    except ValueError:
        return ""


def parse_bind(text: str, default_host: str = "0.0.0.0") -> Address:
    """Where to listen: as `parse_address`, or `unix:/run/lb.sock`."""
    if text.startswith("/"):
        raise ValueError(f"must be host:port or unix: and a path, not a path alone{_unix_suggestion(text)}")
    path = text.removeprefix(_UNIX)
    if path == text or path.isdecimal():  # there may be a host of that name, as in unix:8080
        return parse_address(text, default_host)
    if path.startswith("//"):
        raise ValueError(f"must be unix: and a path, without //{_unix_suggestion(path[2:])}")
    return Address("", 0, _unix_path(path))


def _unix_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"must have an absolute path, as in unix:/run/lb.sock, not {quoted(path)}")
    if path.endswith("/") or not path.isprintable():
        raise ValueError(f"must have the path of a file, as in unix:/run/lb.sock, not {quoted(path)}")
    length = len(path.encode())
    if length > _LONGEST_UNIX_PATH:
        raise ValueError(f"has a path of {length} bytes, but a unix socket's can have {_LONGEST_UNIX_PATH}")
    return path


def _unix_suggestion(path: str) -> str:
    try:
        return suggestion(_UNIX + _unix_path(path))
    except ValueError:
        return ""


def parse_host(text: str) -> str:
    """A host name in lower case, an IPv4 address, or an IPv6 address in brackets."""
    if text.startswith("[") and text.endswith("]"):
        try:
            return f"[{IPv6Address(text[1:-1])}]"
        except ValueError:
            raise ValueError(f"must have an IPv6 address in the brackets, not {quoted(text[1:-1])}") from None
    name = text.lower()
    if _ENDS_IN_NUMBER.fullmatch(name):
        # Else the resolver would take 127.1 and 0x7f000001 for addresses, in ways that people don't expect.
        try:
            return str(IPv4Address(name))
        except ValueError:
            raise ValueError(f"must have an IPv4 address such as 127.0.0.1, not {quoted(text)}") from None
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"must have a host name or an IP address, not {quoted(text)}")
    return name


def parse_host_pattern(text: str) -> str:
    """A host of a route: exact, or `*.example.org` for every name under it. In lower case, with no port."""
    if text == "*":
        raise ValueError("must be a host name: leave hosts out to match every host")
    wildcard = "*." if text.startswith("*.") else ""
    host = text[len(wildcard) :]
    if "*" in host:
        raise ValueError(
            f"can have a * only as its whole first part, as in *.example.org, not {quoted(text)}"
        )
    if "/" in host:
        raise ValueError(f"must be a host name alone, not {quoted(text)}")
    name, colon, _ = host.rpartition(":")
    if host.count(":") > 1 and not host.startswith("["):
        raise ValueError(f"must have an IPv6 address in brackets, as in [::1], not {quoted(text)}")
    if colon and not host.endswith("]"):
        raise ValueError(f"must be a host without a port, not {quoted(text)}{suggestion(wildcard + name)}")
    if wildcard and (host.startswith("[") or _ENDS_IN_NUMBER.fullmatch(host.lower())):
        raise ValueError(f"can have a * only before a host name, not {quoted(text)}")
    return wildcard + parse_host(host).removesuffix(".")


def is_visible(text: str) -> bool:
    """Whether it is ASCII without spaces and controls, as a path on the wire is."""
    return all("!" <= character <= "~" for character in text)


# --- networks ---


def parse_network(text: str) -> Network:
    """Of `10.0.0.0/8`, `2001:db8::/32` or a single address."""
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        right = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"must be a network such as 10.0.0.0/8 or an IP address, not {quoted(text)}"
        ) from None
    raise ValueError(f"must be a network, but bits behind its mask are set{suggestion(str(right))}")


# --- sets of statuses ---

_STATUSES = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class StatusSet:
    """Some statuses: ranges, both ends included. `204 in statuses` asks."""

    ranges: tuple[tuple[int, int], ...] = ()

    @property
    def members(self) -> frozenset[int]:
        """Each of them, for who asks often."""
        return frozenset(status for low, high in self.ranges for status in range(low, high + 1))

    def __contains__(self, status: object) -> bool:
        return isinstance(status, int) and any(low <= status <= high for low, high in self.ranges)

    def __str__(self) -> str:
        """As it is written; off where there is none."""
        return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in self.ranges) or "off"


def parse_statuses(text: str) -> StatusSet:
    """Of `200-399`, `204` or `200,204,300-399`."""
    ranges = []
    for part in text.split(","):
        match = _STATUSES.fullmatch(part.strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if low > high:
            raise ValueError(f"must be statuses such as 200-399 or 200,204,300-399, not {quoted(text)}")
        ranges.append((low, high))
    return joined_statuses(ranges)


def joined_statuses(ranges: Iterable[tuple[int, int]]) -> StatusSet:
    """The one set of these ranges: in order, with neighbours as one, so that equal sets are equal."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            low, high = found[-1][0], max(high, found.pop()[1])
        found.append((low, high))
    return StatusSet(tuple(found))
