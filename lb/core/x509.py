"""What an X.509 certificate says of itself: whose it is, for which names, and until when (RFC 5280).

Nothing is verified here: OpenSSL does that. This reads the few fields that Python's `ssl` only tells of
certificates that a peer has shown and that were good.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

_SEQUENCE = 0x30
_CONTEXT_0, _CONTEXT_3 = 0xA0, 0xA3
_UTC_TIME = 0x17
_COMMON_NAME = "2.5.4.3"
_SUBJECT_ALT_NAME = "2.5.29.17"

# RFC 4514, section 3, and two more that subjects often have.
_SHORT = {
    "2.5.4.3": "CN",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.6": "C",
    "2.5.4.9": "STREET",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
    "2.5.4.5": "serialNumber",
    "1.2.840.113549.1.9.1": "emailAddress",
}
_TEXT = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii", 0x14: "latin-1", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}
_KEYS = {"1.2.840.113549.1.1.1": "RSA", "1.2.840.10045.2.1": "ECDSA", "1.3.101.112": "Ed25519"}
_host_name = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", re.ASCII).fullmatch


class NotACertificate(ValueError):
    """These bytes are no X.509 certificate."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate's own words.

    `subject` is a string as RFC 4514 has it, in visible ASCII. `names` are the DNS names (in lower case, with
    `*.` where it is for every name under one) and the addresses that it is for. Times are Unix times. `key`
    is the kind of the public key.
    """

    subject: str
    names: tuple[str, ...]
    not_before: float
    not_after: float
    key: str


def read_certificate(der: bytes) -> Certificate:
    """What the DER of a certificate says. Raises NotACertificate."""
    try:
        return _read_certificate(der)
    except NotACertificate:
        raise
    except (ValueError, IndexError, LookupError) as error:
        raise NotACertificate(f"it can't be read: {error}") from error


def _read_certificate(der: bytes) -> Certificate:
    tag, whole, end = _element(der, 0)
    if tag != _SEQUENCE or end != len(der):
        raise NotACertificate("it is no DER sequence")
    _, to_be_signed, _ = _element(whole, 0)
    fields = list(_elements(to_be_signed))
    if fields and fields[0][0] == _CONTEXT_0:  # the version; left out in version 1
        del fields[0]
    if len(fields) < 6:
        raise NotACertificate("it has too few fields")
    _, validity = fields[3]
    not_before, not_after = (_time(*each) for each in list(_elements(validity))[:2])
    subject = [list(_attributes(relative)) for _, relative in _elements(fields[4][1])]
    _, key_info, _ = _element(fields[5][1], 0)
    kind = _object_id(_element(key_info, 0)[1])
    names: list[str] = []
    for tag, content in fields[6:]:
        if tag == _CONTEXT_3:
            names = list(_alternative_names(_element(content, 0)[1]))
    if not names:  # what certificates were for before they had a field for it
        common = [value.decode(_TEXT[tag]) for each in subject for name, tag, value in each if name == "CN"]
        names = [name.lower().rstrip(".") for name in common if _host_name(name)]
    text = ",".join(
        "+".join(_attribute_text(*attribute) for attribute in relative) for relative in reversed(subject)
    )
    return Certificate(text, tuple(dict.fromkeys(names)), not_before, not_after, _KEYS.get(kind, kind))


# --- DER (ITU-T X.690) ---


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Tag and content of the element that begins there, and where the next one does."""
    tag, length = data[at], data[at + 1]
    at += 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4:
            raise NotACertificate("an element's length is not DER")
        length = int.from_bytes(data[at : at + count], "big")
        at += count
    if at + length > len(data):
        raise NotACertificate("it is cut off")
    return tag, data[at : at + length], at + length


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        tag, content, at = _element(data, at)
        yield tag, content


def _object_id(content: bytes) -> str:
    numbers: list[int] = []
    number = 0
    for byte in content:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280, section 4.1.2.5.1: 50 and later are of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


# --- names ---


def _alternative_names(extensions: bytes) -> Iterator[str]:
    for _, extension in _elements(extensions):
        parts = list(_elements(extension))
        if _object_id(parts[0][1]) != _SUBJECT_ALT_NAME:
            continue
        for tag, content in _elements(_element(parts[-1][1], 0)[1]):
            if tag == 0x82:
                yield content.decode("ascii").lower().rstrip(".")
            elif tag == 0x87:
                yield str(ip_address(content))


def _attributes(relative: bytes) -> Iterator[tuple[str, int, bytes]]:
    for _, attribute in _elements(relative):
        _, name, behind = _element(attribute, 0)
        tag, value, _ = _element(attribute, behind)
        dotted = _object_id(name)
        yield _SHORT.get(dotted, dotted), tag, value


def _attribute_text(name: str, tag: int, value: bytes) -> str:
    """RFC 4514, section 2.4. What isn't visible ASCII is escaped too, as section 2.4 allows: it goes into a
    header field."""
    if tag not in _TEXT or name[0].isdigit():
        return f"{name}=#{value.hex()}"
    text = value.decode(_TEXT[tag])
    last = len(text) - 1
    escaped = []
    for place, character in enumerate(text):
        if not " " <= character <= "~":
            escaped.append("".join(f"\\{byte:02X}" for byte in character.encode("utf-8", "surrogatepass")))
        elif character in '"+,;<>\\' or (character == " " and place in (0, last)):
            escaped.append("\\" + character)
        elif character == "#" and not place:
            escaped.append("\\#")
        else:
            escaped.append(character)
    return f"{name}={''.join(escaped)}"
