"""Who may come in: by address, and by name and password."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address, ip_address
from os import urandom

from lb.core.identity import Network
from lb.core.passwords import Verify, is_user_name, verifier
from lb.core.rate import RateLimit

UNIX = "unix"
"""The client of a unix socket, which has no address."""

_REMEMBERED = 4096  # verdicts


def client_key(client: str) -> str:
    """What a client is counted by: its address, or the first 64 bits of it for IPv6, of which anybody who has
    one has all (RFC 6177). Text that is no address stands for itself."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
    return client


class Networks:
    """Allowed and denied networks: the smallest one that holds an address decides.

    An address in none of them is let in where nothing is allowed expressly, and else not. `unix` is the
    client of a unix socket. What is neither an address nor that is never let in.
    """

    __slots__ = ("_known", "_masks", "_rest", "_unix", "_verdicts")

    def __init__(self, allow: Iterable[Network | str], deny: Iterable[Network | str]) -> None:
        allow, deny = list(allow), list(deny)
        self._rest = not allow
        self._unix = UNIX not in deny and (self._rest or UNIX in allow)
        self._verdicts: dict[tuple[int, int, int], bool] = {}  # by version, prefix length and network
        for networks, verdict in ((allow, True), (deny, False)):  # where both have it, it is denied
            for each in networks:
                if not isinstance(each, str):
                    self._verdicts[each.version, each.prefixlen, int(each.network_address)] = verdict
        self._masks: dict[int, list[tuple[int, int]]] = {
            version: [
                (length, ((1 << length) - 1) << (bits - length))
                for length in sorted({at[1] for at in self._verdicts if at[0] == version}, reverse=True)
            ]
            for version, bits in ((4, 32), (6, 128))
        }
        self._known: dict[str, bool] = {}

    def admit(self, client: str) -> bool:
        """Whether this client may come in."""
        known = self._known.get(client)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[client] = self._judge(client)
        return known

    def _judge(self, client: str) -> bool:
        if client == UNIX:
            return self._unix
        try:
            address = ip_address(client.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        number, version = int(address), address.version
        for length, mask in self._masks[version]:
            verdict = self._verdicts.get((version, length, number & mask))
            if verdict is not None:
                return verdict
        return self._rest


_basic = re.compile(rb"basic +([A-Za-z0-9+/]+={0,2})", re.I).fullmatch
_LONGEST_CREDENTIALS = 4096  # bytes, in base64


def credentials(authorization: bytes) -> tuple[str, bytes] | None:
    """Name and password of an Authorization field (RFC 7617), or None where there are none in it.

    What was sent as Latin-1 by an old client isn't read: we say `charset="UTF-8"`.
    """
    match = _basic(authorization)
    if match is None or len(match[1]) % 4 or len(match[1]) > _LONGEST_CREDENTIALS:
        return None
    try:
        plain = b64decode(match[1], validate=True)
        name, colon, password = plain.partition(b":")
        text = name.decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    if not colon or not is_user_name(text) or any(byte < 0x20 or byte == 0x7F for byte in password):
        return None
    return text, password


class BasicAuth:
    """Users with the hashes of their passwords, and what is known already of who has logged in (RFC 7617).

    A hash takes its time, so that a good password is remembered for a while, as a keyed hash of its own: the
    key is drawn anew in each process and told to nobody. A wrong one isn't remembered. `failures` is how
    often a client may be wrong.
    """

    REMEMBERED = 4096  # logins
    LASTS = 300.0  # seconds that one is remembered
    FAILURES = 0.5, 10  # a second, and at once

    __slots__ = ("_key", "_logins", "_names", "_verify", "challenge", "failures", "pass_on")

    def __init__(self, realm: str, users: Mapping[str, str], pass_on: bool = False) -> None:
        """Raises ValueError where a hash can't be used, or where there is none."""
        if not users:
            raise ValueError("there are no users")
        self._verify: dict[str, Verify] = {name: verifier(hashed) for name, hashed in users.items()}
        self._names = sorted(users)
        self._key = urandom(32)
        self._logins: OrderedDict[bytes, tuple[str, float]] = OrderedDict()  # name, and until when
        self.failures = RateLimit(*self.FAILURES)
        self.pass_on = pass_on  # whether the backend gets the Authorization field
        quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
        self.challenge = f'WWW-Authenticate: Basic realm="{quoted}", charset="UTF-8"'.encode()

    def digest(self, name: str, password: bytes) -> bytes:
        """What a login is remembered by."""
        return hmac.digest(self._key, name.encode() + b":" + password, hashlib.sha256)

    def known(self, digest: bytes, now: float) -> str:
        """Who has logged in with just that lately; empty if nobody has."""
        found = self._logins.get(digest)
        if found is None:
            return ""
        name, until = found
        if now >= until:
            del self._logins[digest]
            return ""
        return name

    def remember(self, digest: bytes, name: str, now: float) -> None:
        self._logins[digest] = name, now + self.LASTS
        if len(self._logins) > self.REMEMBERED:
            self._logins.popitem(last=False)

    def verify(self, name: str, password: bytes) -> bool:
        """Whether that is the user's password. Takes long; may be called by another thread.

        For a user that there isn't, the hash of another one is computed, and always the same one for the same
        name: how long it takes tells nothing.
        """
        verify = self._verify.get(name)
        if verify is not None:
            return verify(password)
        drawn = int.from_bytes(hmac.digest(self._key, name.encode(), hashlib.sha256)[:8], "big")
        self._verify[self._names[drawn % len(self._names)]](password)
        return False
