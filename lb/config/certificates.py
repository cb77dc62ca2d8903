"""Files with certificates and keys, judged before anyone listens: what is wrong with one, in words."""

from __future__ import annotations

import os
import re
import stat
from binascii import Error as NotBase64
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lb.config.section import Found

if TYPE_CHECKING:
    from lb.core.x509 import Certificate

_MOST_BYTES = 2**20  # of a file; a whole system's authorities have a quarter of that
_BLOCK = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.*?)-----END (?:X509 |TRUSTED )?CERTIFICATE-----",
    re.DOTALL,
)


class KeyIsEncrypted(Exception):
    """A key asks for a passphrase."""


def ask_nobody() -> str:
    """The passphrase of a key: there is nobody at the terminal who could give one."""
    raise KeyIsEncrypted


def certificates_in(path: str) -> list[Certificate]:
    """What the certificates in a PEM file say, in their order. Raises ValueError in words for people."""
    from base64 import b64decode

    from lb.core.x509 import NotACertificate, read_certificate

    found = []
    for block in _BLOCK.findall(_content(path)):
        try:
            found.append(read_certificate(b64decode(block)))
        except (NotACertificate, NotBase64) as error:
            raise ValueError(f"certificate {len(found) + 1} in {path} is damaged: {error}") from None
    if not found:
        raise ValueError(f"{path} has no certificate in it (PEM is wanted: -----BEGIN CERTIFICATE-----)")
    return found


def _content(path: str) -> bytes:
    try:
        kind = os.stat(path)
        if not stat.S_ISREG(kind.st_mode):
            raise ValueError(f"{path} is no file")
        if kind.st_size > _MOST_BYTES:
            raise ValueError(f"{path} is larger than {_MOST_BYTES // 2**20} MiB")
        with open(path, "rb") as stream:
            return stream.read(_MOST_BYTES)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None


def pair_problems(cert: str, key: str) -> Iterator[Found]:
    """What keeps a certificate and its key from being used."""
    before = []
    for name, path, read in (("cert", cert, certificates_in), ("key", key, _content)):
        try:
            read(path)
        except ValueError as error:
            before.append(((name,), str(error)))
    if before:
        yield from before
        return
    import ssl  # only who has certificates waits for it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, ask_nobody)
    except KeyIsEncrypted:
        yield (
            ("key",),
            f"{key} is encrypted, and nobody is there to type its passphrase: "
            f"decrypt it with openssl pkey -in {key} -out FILE, and let only the balancer read that",
        )
    except ssl.SSLError as error:
        yield _refused(error, cert, key)
    except OSError as error:
        yield ("key",), f"{key} can't be read: {error.strerror}"


def _refused(error: Exception, cert: str, key: str) -> Found:
    reason = str(getattr(error, "reason", None) or "")
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        return ("key",), f"{key} isn't the key of the certificate in {cert}"
    if b"PRIVATE KEY-----" not in _content(key):
        return ("key",), f"{key} has no private key in it (PEM is wanted: -----BEGIN PRIVATE KEY-----)"
    if reason.endswith(("KEY_TOO_SMALL", "MD_TOO_WEAK")):
        return ("cert",), f"{cert} is too weak by today's measure: {reason.lower().replace('_', ' ')}"
    return ("key",), f"{key} can't be used with {cert}: {reason.lower().replace('_', ' ') or error}"


def authority_problem(path: str) -> str | None:
    """What keeps a file of authorities from being used."""
    import ssl

    try:
        certificates_in(path)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as error:
        return f"{path} can't be used: {error.reason or error}"
    except ValueError as error:
        return str(error)
    return None


def ciphers_problem(ciphers: str) -> str | None:
    """What is wrong with a list of ciphers as OpenSSL writes it."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(ciphers)
    except ssl.SSLError:
        return "names no cipher that OpenSSL knows (see openssl ciphers -v)"
    return None
