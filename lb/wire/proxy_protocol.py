"""The PROXY protocol, versions 1 and 2: whose connection this is, told by who passes it on.

Source: The PROXY protocol, HAProxy Technologies, 2020/03/05 (proxy-protocol.txt).

A header that is not exactly as the specification has it is malformed. Nothing is guessed: who says the wrong
thing here could say who the client is.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V1: Final = b"PROXY "
_LONGEST_V1: Final = 107  # bytes, with the line's end (section 2.1)
LONGEST_V2: Final = 16384  # bytes that we take: the addresses have 216 at most, the rest is for extensions
_FIXED_V2: Final = 16  # bytes of the part that says how long the rest is

_LOCAL: Final = 0
_PROXY: Final = 1
_UNSPEC: Final = 0
_INET: Final = 1
_INET6: Final = 2
_UNIX: Final = 3
_STREAM: Final = 1
_DATAGRAM: Final = 2
_LENGTHS: Final = {_UNSPEC: 0, _INET: 12, _INET6: 36, _UNIX: 216}  # bytes of both addresses and ports

_TLV_CRC32C: Final = 0x03
_TLV_SSL: Final = 0x20
_CLIENT_SSL: Final = 0x01


class Malformed(ValueError):
    """This is no header of the PROXY protocol. The text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a header says.

    `source` is the client's address, and `port` its port. It is empty where the header tells of none: the
    sender speaks for itself (as health checks do), or doesn't know. A client of a unix socket is `unix:`.
    `tls` is whether the client spoke TLS with the sender. `size` is how many bytes the header had.
    """

    source: str
    port: int
    tls: bool
    size: int


def read_header(data: bytes) -> ProxyHeader | None:
    """The header that the data begins with; None while more of it has to come. Raises Malformed."""
    if data[: len(_V1)] == _V1[: len(data)]:
        return _read_v1(data)
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _read_v2(data)
    raise Malformed("it doesn't begin with a PROXY header")


# --- version 1: a line for people ---


def _read_v1(data: bytes) -> ProxyHeader | None:
    stop = data.find(b"\r\n", 0, _LONGEST_V1)
    if stop < 0:
        if len(data) >= _LONGEST_V1 or b"\n" in data:
            raise Malformed("its line has no end")
        return None
    if b"\n" in data[:stop]:  # as it would be seen had it come in pieces
        raise Malformed("its line has an end of another kind in it")
    size = stop + 2
    words = data[:stop].split(b" ")
    if words[1] == b"UNKNOWN":  # whatever follows is to be ignored
        return ProxyHeader("", 0, False, size)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise Malformed("its line isn't of the form PROXY TCP4|TCP6|UNKNOWN …")
    _, family, source, destination, source_port, destination_port = words
    client = _address(family, source)
    _address(family, destination)
    _port(destination_port)
    return ProxyHeader(client, _port(source_port), False, size)


def _address(family: bytes, text: bytes) -> str:
    try:
        written = text.decode("ascii")
        if "%" in written:
            raise ValueError("it has a zone")
        return str(IPv4Address(written)) if family == b"TCP4" else _plain(IPv6Address(written))
    except ValueError:
        raise Malformed(f"an address is no {'IPv4' if family == b'TCP4' else 'IPv6'} address") from None


def _plain(address: IPv6Address) -> str:
    """An IPv4 client of a listener for both (`::ffff:192.0.2.1`) is an IPv4 client."""
    return str(address.ipv4_mapped or address)


def _port(text: bytes) -> int:
    # Bytes that are all digits, and none in front that could make it octal.
    if not text.isdigit() or len(text) > 5 or (text[:1] == b"0" and text != b"0") or int(text) > 65535:
        raise Malformed("a port is no number from 0 to 65535")
    return int(text)


# --- version 2: bytes for machines ---


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _FIXED_V2:
        return None
    version, command = data[12] >> 4, data[12] & 15
    family, transport = data[13] >> 4, data[13] & 15
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise Malformed("its version or command is unknown")
    size = _FIXED_V2 + int.from_bytes(data[14:16], "big")
    if size > LONGEST_V2:
        raise Malformed(f"it has {size} bytes, and {LONGEST_V2} are taken")
    if len(data) < size:
        return None
    if command == _LOCAL:  # the sender speaks for itself: the rest is to be ignored
        return ProxyHeader("", 0, False, size)
    if family not in _LENGTHS or transport > _DATAGRAM:
        raise Malformed("its family or transport is unknown")
    addresses = _FIXED_V2 + _LENGTHS[family]
    if addresses > size:
        raise Malformed("it is too short for its addresses")
    tls = _extensions(data[:size], addresses)
    if family == _UNSPEC or transport != _STREAM:  # nobody who could have sent these bytes
        return ProxyHeader("", 0, tls, size)
    if family == _UNIX:
        return ProxyHeader("unix:", 0, tls, size)
    if family == _INET:
        return ProxyHeader(str(IPv4Address(data[16:20])), int.from_bytes(data[24:26], "big"), tls, size)
    source = _plain(IPv6Address(data[16:32]))
    return ProxyHeader(source, int.from_bytes(data[48:50], "big"), tls, size)


def _extensions(header: bytes, at: int) -> bool:
    """Goes through type, length, value until the header's end. Whether the client spoke TLS."""
    tls = checked = False
    while at < len(header):
        if at + 3 > len(header):
            raise Malformed("an extension is cut off")
        kind, begin = header[at], at + 3
        at = begin + int.from_bytes(header[at + 1 : begin], "big")
        if at > len(header):
            raise Malformed("an extension is longer than the header")
        if kind == _TLV_CRC32C:
            if at - begin != 4 or checked:
                raise Malformed("it has no checksum of four bytes, or two")
            checked = True
            blank = header[:begin] + bytes(4) + header[at:]
            if crc32c(blank) != int.from_bytes(header[begin:at], "big"):
                raise Malformed("its checksum is wrong")
        elif kind == _TLV_SSL:
            if at - begin < 5:
                raise Malformed("what it says of TLS is cut off")
            tls = bool(header[begin] & _CLIENT_SSL)
    return tls


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return tuple(found)


_CRC32C: Final = _table()


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum (RFC 4960, appendix B, with the bits reflected)."""
    found = 0xFFFFFFFF
    for byte in data:
        found = found >> 8 ^ _CRC32C[(found ^ byte) & 255]
    return found ^ 0xFFFFFFFF
