"""Hashes of passwords: which are good enough, and whether a password is the one.

Three kinds, each written as the programs that make them write it:

* bcrypt, `$2y$10$…` (also `$2a$`, `$2b$`), as `htpasswd -B` does. It takes the package `bcrypt`.
* scrypt, `$scrypt$ln=15,r=8,p=1$SALT$HASH` (RFC 7914), and PBKDF2, `$pbkdf2-sha256$600000$SALT$HASH`
  (RFC 8018), as passlib does: base64 without padding, with `.` or `+`.

Anything that a graphics card tries by the billion each second is refused: plain text, MD5, SHA-1, crypt.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from binascii import Error
from collections.abc import Callable
from hmac import compare_digest

Verify = Callable[[bytes], bool]

_bcrypt = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}", re.ASCII).fullmatch
_scrypt = re.compile(
    r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,2}),p=([0-9]{1,2})\$([./+A-Za-z0-9]{1,128})\$([./+A-Za-z0-9]{1,128})",
    re.ASCII,
).fullmatch
_pbkdf2 = re.compile(
    r"\$pbkdf2-(sha256|sha512)\$([0-9]{1,8})\$([./+A-Za-z0-9]{1,128})\$([./+A-Za-z0-9]{1,128})", re.ASCII
).fullmatch

# So much work per login that more would be a way to stop the balancer, or a slip: some two seconds, 256 MiB.
_MOST_BCRYPT = 15
_MOST_SCRYPT = 2**28  # bytes: 128 * r * 2**ln
_MOST_PBKDF2 = 10_000_000
_LEAST_PBKDF2 = 1000
_LEAST_BYTES = 16  # of a hash
_LONGEST_BCRYPT = 72  # bytes of a password: bcrypt takes no more, and all programs cut there

_WEAK = (
    (r"\$apr1\$.*|\$1\$.*|\{SMD5\}.*|\{MD5\}.*", "MD5"),
    (r"\{S?SHA\}.*", "SHA-1"),
    (r"\$[56]\$.*", "crypt's SHA-2"),
    (r"\$(7|y|gy|md5|sha1|2|2x)\$.*", "an old kind of crypt"),
    (r"[./A-Za-z0-9]{13}", "crypt or plain text"),
)
_ADVICE = "; make one with htpasswd -B"


def verifier(written: str) -> Verify:
    """What tells whether a password is the one of this hash. Slow, by intent.

    Raises ValueError, in words that show nothing of the hash, where it is of no kind that is taken, and where
    the package for it isn't there.
    """
    if match := _bcrypt(written):
        return _of_bcrypt(written, int(match[1]))
    if match := _scrypt(written):
        ln, r, p, salt, key = match.groups()
        return _of_scrypt(int(ln), int(r), int(p), _decoded(salt), _key(key))
    if match := _pbkdf2(written):
        name, rounds, salt, key = match.groups()
        return _of_pbkdf2(name, int(rounds), _decoded(salt), _key(key))
    for pattern, kind in _WEAK:
        if re.fullmatch(pattern, written, re.ASCII):
            raise ValueError(f"is {kind}, which is too easily guessed; use bcrypt{_ADVICE}")
    if written.startswith(("$2", "$scrypt$", "$pbkdf2")):
        raise ValueError("is no whole bcrypt, scrypt or pbkdf2 hash: something of it is missing or changed")
    raise ValueError(f"is no hash that is known here (plain text is refused){_ADVICE}")


def _of_bcrypt(written: str, cost: int) -> Verify:
    if not 4 <= cost <= _MOST_BCRYPT:
        raise ValueError(f"has the cost {cost}, but 4 to {_MOST_BCRYPT} are taken (12 takes about 0.2 s)")
    try:
        from bcrypt import checkpw  # here: few need it
    except ImportError:
        raise ValueError("needs the package bcrypt: pip install 'lb[auth]'") from None
    hashed = written.encode()
    return lambda password: checkpw(password[:_LONGEST_BCRYPT], hashed)


def _of_scrypt(ln: int, r: int, p: int, salt: bytes, key: bytes) -> Verify:
    memory = 128 * r * (1 << ln)
    if not (ln and r and 1 <= p <= 16 and memory <= _MOST_SCRYPT):
        raise ValueError(
            f"has parameters that can't be used (at most {_MOST_SCRYPT >> 20} MiB, which is ln=18,r=8, "
            "and p=16)"
        )

    def verify(password: bytes) -> bool:
        found = hashlib.scrypt(
            password, salt=salt, n=1 << ln, r=r, p=p, maxmem=memory + (1 << 21) * p, dklen=len(key)
        )
        return compare_digest(found, key)

    return verify


def _of_pbkdf2(name: str, rounds: int, salt: bytes, key: bytes) -> Verify:
    if not _LEAST_PBKDF2 <= rounds <= _MOST_PBKDF2:
        raise ValueError(f"has {rounds} rounds, but {_LEAST_PBKDF2} to {_MOST_PBKDF2} are taken")

    def verify(password: bytes) -> bool:
        return compare_digest(hashlib.pbkdf2_hmac(name, password, salt, rounds, len(key)), key)

    return verify


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text.replace(".", "+") + "=" * (-len(text) % 4), validate=True)
    except Error:
        raise ValueError("is no whole hash: its base64 can't be read") from None


def _key(text: str) -> bytes:
    key = _decoded(text)
    if len(key) < _LEAST_BYTES:
        raise ValueError(f"is too short: at least {_LEAST_BYTES} bytes are needed")
    return key


def is_user_name(name: str) -> bool:
    """Whether it can be a user's name: something without a colon and controls (RFC 7617, section 2)."""
    return bool(name) and len(name) <= 256 and name.isprintable() and ":" not in name


def read_htpasswd(text: str) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """Names with their hashes, and what is wrong, by line. Empty lines and those that begin with `#` are
    skipped."""
    users: dict[str, str] = {}
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, hashed = line.partition(":")
        if not colon or not is_user_name(name):
            problems.append((number, "must be NAME:HASH"))
        elif name in users:
            problems.append((number, f"the user {name!r} is here twice"))
        else:
            try:
                verifier(hashed)
            except ValueError as error:
                problems.append((number, f"the password of {name!r} {error}"))
            users[name] = hashed
    return users, problems
