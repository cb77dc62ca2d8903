"""TLS toward the backends of a pool: the files it is made from, sessions that are taken up again, and what is
wrong in words.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

log = logging.getLogger("lb.proxy")

LOOK = 1.0  # seconds between two looks at the files
RESUMED_FOR = 600.0  # seconds after which a certificate is looked at again: who takes up a session shows none
SILENCE = 30.0  # seconds between two lines in the log about the same backend

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How to speak TLS with backends. Empty: the backend's own name, the system's CAs, no certificate."""

    server_name: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    min_version: str = "1.2"
    verify: bool = True

    @property
    def files(self) -> Sequence[str]:
        return [path for path in (self.ca, self.cert, self.key) if path]


_Signature = tuple[tuple[int, ...], ...]


class BackendTls:
    """What a pool's connections share: one context, made anew where a file has changed."""

    def __init__(self, options: TlsOptions, pool: str) -> None:
        """Raises ValueError, in words, where a file can't be used."""
        self.options = options
        self._pool = pool
        self._signature = _signature(options)
        self.context = _context(options)
        self._refused: _Signature | None = None  # what the files were when they were no good
        self._looked = monotonic()
        self._sessions: dict[str, _Session] = {}  # by the backend's address
        self._told: dict[str, _Told] = {}  # by the backend's ID

    def renew(self) -> None:
        """Goes by the files as they are now. Raises ValueError where they can't be used, and goes on as it
        was; what changes without anyone saying so is found by `handshake`."""
        signature = _signature(self.options)
        if signature != self._signature:
            self.context = _context(self.options)
            self._signature = signature
            self._refused = None
            self._sessions.clear()

    def _look(self) -> None:
        now = monotonic()
        if not self.options.files or now < self._looked + LOOK:
            return
        self._looked = now
        signature = _signature(self.options)
        if signature in (self._signature, self._refused):
            return
        try:
            self.renew()
            log.info("pool %s: the files for TLS have changed, and hold for new connections", self._pool)
        except ValueError as error:
            self._refused = signature
            log.error("pool %s: TLS goes on with the files as they were: %s", self._pool, error)

    def name_for(self, host: str) -> str:
        """The name that a backend has to prove. A unix socket has none but localhost, if nothing is said."""
        return self.options.server_name or host or "localhost"

    def handshake(self, address: str) -> Handshake:
        """What the event loop needs for a new connection to this address."""
        self._look()
        session = self._sessions.get(address)
        if session is None or session.context is not self.context or monotonic() > session.until:
            if len(self._sessions) > 10_000:  # of backends that have come and gone
                self._sessions.clear()
            session = self._sessions[address] = _Session(self.context)
        return Handshake(session)

    def tell(self, backend_id: str, error: BaseException) -> None:
        """Says in the log why there is no connection, once in a while."""
        now = monotonic()
        told = self._told.setdefault(backend_id, _Told())
        told.count += 1
        reason = in_words(error)
        if now < told.until and reason == told.reason:
            return
        more = f" ({told.count} times since the last such line)" if told.count > 1 else ""
        log.warning("pool %s: backend %s: no TLS connection: %s%s", self._pool, backend_id, reason, more)
        told.reason, told.count, told.until = reason, 0, now + SILENCE


class _Told:
    """What was said of a backend last."""

    def __init__(self) -> None:
        self.reason = ""
        self.count = 0
        self.until = 0.0


class _Session:
    """The last connection to an address, whose session may be taken up by the next one.

    The server's tickets come some time after the handshake (RFC 8446, section 4.6.1): the session is asked
    for when it is needed.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.until = monotonic() + RESUMED_FOR
        self.last: ssl.SSLObject | None = None
        self.name: str | None = None

    def take(self, name: str | None) -> ssl.SSLSession | None:
        """One that was begun with a server of the same name: no name is compared when it is taken up."""
        if self.last is None or self.name != name:
            return None
        try:
            return self.last.session
        except ValueError:  # the library has none that could be written down
            return None


class Handshake:
    """Stands for the context at one handshake, so that a session can be taken up: the event loop's own way
    has no place for one."""

    def __init__(self, session: _Session) -> None:
        self._session = session
        self._made: ssl.SSLObject | None = None
        self._name: str | None = None
        self.begun = False  # there is a connection, and from now on what fails is TLS

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | None = None,
        **others: Any,
    ) -> ssl.SSLObject:
        self.begun = True
        kept = self._session
        found = kept.context.wrap_bio(
            incoming,
            outgoing,
            server_side=False,
            server_hostname=server_hostname,
            session=kept.take(server_hostname),
        )
        self._made, self._name = found, server_hostname
        return found

    def ended(self, good: bool) -> None:
        """It has ended. Only what has begun well may be taken up again."""
        kept = self._session
        kept.last, kept.name = (self._made, self._name) if good else (None, None)


# --- the context ---


def _signature(options: TlsOptions) -> _Signature:
    """What the files are; one that isn't there is nothing."""
    return tuple(_file_signature(path) for path in options.files)


def _file_signature(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _context(options: TlsOptions) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = VERSIONS[options.min_version]
    # What is given as a CA is trusted, also where another one has signed it or it is the server's own.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["http/1.1"])
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif options.ca:
        _load("ca", options.ca, lambda: context.load_verify_locations(options.ca))
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if options.cert:
        _readable("cert", options.cert)
        key = options.key or options.cert
        _readable("key", key)
        _load("cert", options.cert, lambda: context.load_cert_chain(options.cert, key, _no_password))
    return context


def _readable(what: str, path: str) -> None:
    """Raises ValueError where it can't be read: of two files, the library doesn't say which."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ValueError(f"{what} {path} can't be read: {(error.strerror or str(error)).lower()}") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted, and there is nobody to ask for its password: decrypt it")


def _load(what: str, path: str, load: Any) -> None:
    try:
        load()
    except ssl.SSLError as error:
        words = _BAD_FILES.get(error.reason or "", "there is no certificate in it that can be read")
        raise ValueError(f"{what} {path} can't be used: {words}") from error
    except OSError as error:
        raise ValueError(f"{what} {path} can't be read: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise ValueError(f"{what} {path} can't be used: {error}") from error


_BAD_FILES = {
    "KEY_VALUES_MISMATCH": "the key is another certificate's",
    "KEY_TYPE_MISMATCH": "the key is another certificate's",
    "EE_KEY_TOO_SMALL": "its key is too short to be safe",
    "CA_MD_TOO_WEAK": "it is signed in a way that isn't safe any more",
}


# --- what went wrong ---

_VERIFYING = {  # X509_V_ERR_… of OpenSSL's x509_vfy.h
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is signed by itself, and not one of those that are trusted",
    19: "its certificate is by a CA that isn't trusted",
    20: "its certificate is by a CA that isn't trusted",
    21: "its certificate is by a CA that isn't trusted, or it leaves out one between",
    23: "its certificate has been revoked",
    26: "its certificate is not meant for servers",
    66: "its certificate has a key that is too short to be safe",
}
_OTHER_NAME = (62, 63, 64)

OUR_CERTIFICATE = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate, and got none",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it doesn't take our client certificate, or wants one",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it doesn't take our client certificate",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "our client certificate has been revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it doesn't take our client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "our client certificate is by a CA that it doesn't trust",
    "TLSV1_ALERT_ACCESS_DENIED": "it doesn't let us in with our client certificate",
    "TLSV1_ALERT_DECRYPT_ERROR": "it found our client certificate's signature wrong",
}
"""Alerts by which a server says so. In TLS 1.3 they may come behind the handshake, as it seems to us."""

_HANDSHAKE = {
    "WRONG_VERSION_NUMBER": "what answers there is not TLS",
    "HTTP_REQUEST": "what answers there is not TLS",
    "PACKET_LENGTH_TOO_LONG": "what answers there is not TLS",
    "RECORD_LAYER_FAILURE": "what answers there is not TLS",
    "UNSUPPORTED_PROTOCOL": "it speaks only versions of TLS that are too old",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no version of TLS that we do",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses: no cipher in common, or it wants a client certificate",
    "TLSV1_UNRECOGNIZED_NAME": "it knows nobody of this server_name",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "it doesn't speak HTTP/1.1",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection in the midst of the handshake",
    **OUR_CERTIFICATE,
}


def refuses_us(error: BaseException | None) -> bool:
    """Whether a connection has ended because the server wants a certificate, or another one."""
    return isinstance(error, ssl.SSLError) and error.reason in OUR_CERTIFICATE


def in_words(error: BaseException) -> str:
    """Why a handshake has failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            return f"its certificate is for another name: {error.verify_message}"
        return _VERIFYING.get(error.verify_code, f"its certificate is not good: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return _HANDSHAKE.get(error.reason or "", (error.reason or str(error)).replace("_", " ").lower())
    if isinstance(error, ConnectionError):
        return "it closed the connection in the midst of the handshake"
    return str(error) or type(error).__name__
