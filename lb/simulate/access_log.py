"""Access logs as they are read for a replay: our own, in JSON, and nginx's in whatever format it is written.

read = reader_for("nginx")          # or "json", or a log_format of nginx
entry = read(line)                  # raises ValueError where the line isn't one
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

LONGEST = 1_000_000
"""Characters of a line; what is longer is none."""


class Entry(NamedTuple):
    """A request as a log has it. Times in seconds: Unix time, or how long."""

    at: float  # when it came
    waited: float  # from then until its last attempt began
    took: float  # the last attempt; below 0 where there was none
    backend: str  # of that attempt; empty where the log doesn't say
    status: int  # 0 where there was no answer
    failure: str  # its name; empty where it went well
    client: str
    path: str
    pool: str = ""
    second: int = -1  # of its end, where no more than that is known


Reader = Callable[[str], Entry | None]
"""An entry of a line; None for a request that never came to a pool. Raises ValueError for anything else."""

# --- ours ---


def _status(number: float) -> int:
    """A status of HTTP, or 0 where there was none. Raises ValueError for another number."""
    if number and not 100 <= number <= 999:
        raise ValueError("it has a status that is none")
    return int(number)


def read_json(line: str) -> Entry | None:
    """A line of our own log; docs/operations.md has its fields."""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    pool, backend = found.get("pool"), found.get("backend")
    if not pool:
        return None
    failure, status = _text(found.get("failure")), _status(_number(found.get("status")))
    if backend is None and failure in _BEFORE_THE_POOL:
        return None
    at = _iso(_text(found.get("time")))
    took = found.get("attempt_ms")
    duration = _number(found.get("duration_ms")) / 1e3
    seconds = -1.0 if backend is None or took is None else _number(took) / 1e3
    first = found.get("attempts", 1) == 1
    return Entry(
        at,
        0.0 if first or seconds < 0 else max(0.0, duration - seconds),
        seconds,
        _text(backend),
        0 if failure else status,
        failure or (str(status) if status >= 500 else ""),
        _text(found.get("client")),
        _text(found.get("path")),
        _text(pool),
    )


_BEFORE_THE_POOL = frozenset(
    ("rate_limited", "body_too_large", "request_timeout", "client_gone", "shutting_down", "internal")
)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _iso(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


# --- nginx ---

_COMBINED = (
    '$remote_addr - $remote_user [$time_local] "$request" '
    '$status $body_bytes_sent "$http_referer" "$http_user_agent"'
)

NGINX_FORMATS = (
    _COMBINED + " $request_time $upstream_response_time $upstream_addr",
    _COMBINED + " $upstream_addr $request_time $upstream_response_time",
    _COMBINED + " $request_time $upstream_response_time",
    _COMBINED + ' "$http_x_forwarded_for" $request_time $upstream_response_time $upstream_addr',
    _COMBINED + ' "$http_x_forwarded_for" rt=$request_time ua="$upstream_addr" us="$upstream_status" '
    'ut="$upstream_response_time" ul="$upstream_response_length" cs=$upstream_cache_status',
    _COMBINED + ' rt=$request_time uct="$upstream_connect_time" uht="$upstream_header_time" '
    'urt="$upstream_response_time"',
    _COMBINED + ' rt=$request_time uct="$upstream_connect_time" uht="$upstream_header_time" '
    'urt="$upstream_response_time" ua="$upstream_addr"',
)
"""What `nginx` stands for: the combined format with its usual tails. The first that fits a line is taken."""

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_LIST = re.compile(r"\s*[,:]\s+|\s+:\s*")
"""Between the values of several attempts: `, ` at another server, ` : ` after an internal redirect."""


class WrongFormat(Exception):
    """A log format that can't be used."""


def reader_for(format_: str) -> Reader:
    """The reader of `json`, `nginx`, or of a log format of nginx. Raises WrongFormat."""
    if format_ == "json":
        return read_json
    if format_ == "nginx":
        return _first_that_fits([nginx_reader(each) for each in NGINX_FORMATS])
    if "$" not in format_:
        raise WrongFormat(
            f"the log format must be json, nginx, or one with nginx's variables, not '{format_}'"
        )
    return nginx_reader(format_)


def _first_that_fits(readers: list[Reader]) -> Reader:
    chosen: list[Reader] = []

    def read(line: str) -> Entry | None:
        if chosen:
            return chosen[0](line)
        for each in readers:
            try:
                found = each(line)
            except ValueError:
                continue
            chosen.append(each)
            return found
        raise ValueError("it has no format that is known")

    return read


def nginx_reader(format_: str) -> Reader:
    """The reader of a `log_format` of nginx. Of its variables it has to have a time, and how long it took."""
    names = [one or other for one, other in _VARIABLE.findall(format_)]
    moments = [name for name in ("msec", "time_iso8601", "time_local") if name in names]
    if not moments:
        raise WrongFormat("the log format needs $msec, $time_iso8601 or $time_local")
    if "request_time" not in names and "upstream_response_time" not in names:
        raise WrongFormat("the log format needs $request_time or $upstream_response_time")
    pattern, end = "", 0
    for place, found in enumerate(_VARIABLE.finditer(format_)):
        pattern += re.escape(format_[end : found.start()])
        end = found.end()
        pattern += f"(?P<v{place}>{_inner(names[place], format_[end : end + 1])})"
    matches = re.compile(pattern + re.escape(format_[end:])).fullmatch
    places = {name: f"v{place}" for place, name in reversed(list(enumerate(names)))}

    def read(line: str) -> Entry | None:
        match = matches(line)
        if match is None:
            raise ValueError("it does not fit the format")
        return _nginx_entry({name: match[group] for name, group in places.items()}, moments[0])

    return read


def _inner(name: str, following: str) -> str:
    """What a variable may hold. A list of several attempts has blanks in it."""
    if name == "upstream_addr":
        return _SEVERAL.replace("ONE", r"[^\s,\"]+")
    if name in ("upstream_response_time", "upstream_connect_time", "upstream_header_time", "upstream_status"):
        return _SEVERAL.replace("ONE", r"(?:[0-9.]+|-)")
    if name in ("request_time", "msec", "status"):
        return r"[0-9.]+|-"
    return f"[^{re.escape(following)}]*" if following in ('"', "]", "|", "\t") else ".*?"


_SEVERAL = r"(?:ONE(?:(?:, | : )ONE)*)?"


def _nginx_entry(values: dict[str, str], moment: str) -> Entry | None:
    took = values.get("upstream_response_time")
    times = [_seconds(each) for each in _LIST.split(took)] if took and took != "-" else []
    request_time = _seconds(values["request_time"]) if "request_time" in values else sum(map(_known, times))
    if took is not None and not times:
        return None  # answered by nginx itself
    if took is None:
        times = [request_time]
    ended = _moment(values[moment], moment)
    at = ended - request_time
    addresses = _LIST.split(values.get("upstream_addr", ""))
    status = _status(int(values["status"])) if values.get("status", "").isdigit() else 200
    return Entry(
        at,
        sum(map(_known, times[:-1])),
        times[-1],
        "" if addresses[-1] == "-" else addresses[-1],
        status,
        str(status) if status >= 500 else "client_gone" if status == 499 else "",
        values.get("remote_addr", ""),
        _path(values),
        second=-1 if moment == "msec" else int(ended),
    )


def _seconds(text: str) -> float:
    """nginx writes - where an attempt has come to no answer."""
    return -1.0 if text == "-" else _number(float(text))


def _known(value: float) -> float:
    return max(0.0, value)


def _moment(text: str, name: str) -> float:
    if name == "msec":
        return _number(float(text))
    if name == "time_iso8601":
        return _iso(text)
    return datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z").timestamp()


def _path(values: dict[str, str]) -> str:
    if "request_uri" in values or "uri" in values:
        return values.get("request_uri") or values["uri"]
    parts = values.get("request", "").split(" ")
    return parts[1] if len(parts) > 1 else ""


# --- a whole log ---


class Told:
    """What was in a log that is of no use: how much of it, and why the first such line isn't."""

    def __init__(self) -> None:
        self.lines = 0
        self.malformed = 0
        self.elsewhere = 0  # requests that never came to a pool, or to another one
        self.first = ""


def entries(lines: Iterable[str], read: Reader, told: Told) -> Iterator[Entry]:
    """The entries of a log, line by line. What isn't one is counted."""
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        told.lines += 1
        try:
            if len(line) > LONGEST:
                raise ValueError("it is too long")
            entry = read(line)
        except (ValueError, OverflowError, RecursionError, OSError) as error:
            told.malformed += 1
            told.first = told.first or f"line {number}: {_in_short(error)}"
            continue
        if entry is None:
            told.elsewhere += 1
        else:
            yield entry


def _in_short(error: Exception) -> str:
    words = "it is no JSON" if isinstance(error, json.JSONDecodeError) else " ".join(str(error).split())
    return words if len(words) <= 120 else words[:119] + "…"


def spread(found: Iterable[Entry]) -> Iterator[Entry]:
    """Where moments are only known to the second, entries of one second of ends are spread over it evenly."""
    same = list[Entry]()
    for entry in found:
        if same and entry.second != same[0].second:
            yield from _spread(same)
            same = []
        if entry.second < 0:
            yield entry
        else:
            same.append(entry)
    yield from _spread(same)


def _spread(same: list[Entry]) -> Iterator[Entry]:
    for place, entry in enumerate(same):
        yield entry._replace(at=entry.at + (place + 0.5) / len(same))
