"""The certificates of listeners: made into TLS contexts, and made anew when their files change.

Files are looked at as the configuration's own is (lb/watch.py), whatever `watch` says: who renews a
certificate mostly is a program, which restarts nobody. A pair that can't be used leaves the old one in force,
and is tried again when it changes again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lb.build import CannotStart
from lb.config import Tls
from lb.config.certificates import ask_nobody, authority_problem, certificates_in, pair_problems
from lb.core.x509 import Certificate
from lb.discovery.watched import Signature, signature
from lb.watch import LOOK

log = logging.getLogger("lb")

# Forward secrecy and authenticated encryption, and nothing else: what RFC 9325, section 4.2, recommends for
# TLS 1.2. That of TLS 1.3 is all of this kind.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the files have given. By server name, exact or behind the `*.` of a wildcard."""

    default: ssl.SSLContext
    exact: dict[str, ssl.SSLContext]
    under: dict[str, ssl.SSLContext]
    certificates: tuple[Certificate, ...]

    def context_for(self, name: str | None) -> ssl.SSLContext | None:
        """RFC 6125, section 6.4.3: a wildcard stands for one label."""
        if not name:
            return None
        name = name.lower().rstrip(".")
        return self.exact.get(name) or self.under.get(name.partition(".")[2])


class ServerTls:
    """TLS with the clients of one listener. Raises CannotStart where its files can't be used."""

    def __init__(self, config: Tls, listener: str) -> None:
        self.config = config
        self._listener = listener
        self._signatures = self._look()  # first: a change from here on is another one
        self._seen = self._signatures
        try:
            self._loaded = self._load()
        except ValueError as error:
            raise CannotStart(f"listener {listener}: {error}") from error
        self._tell_dates()

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """TLS with one more client, by the certificates that hold now."""
        return self._loaded.default.wrap_bio(incoming, outgoing, server_side=True)

    @property
    def trust(self) -> tuple[str | None, str]:
        """Whom clients have to be certified by, and whether they have to."""
        return self.config.client_ca, self.config.client_auth

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Those that are shown, in the order of the configuration."""
        return self._loaded.certificates

    # --- the files ---

    def is_of(self, config: Tls) -> bool:
        """Whether it is what this would give, as the files are now."""
        return config == self.config and self._signatures == self._look()

    def has_changed(self) -> bool:
        """Whether a file is another one than was loaded last, and all were at rest since the last look."""
        now = self._look()
        at_rest, self._seen = now == self._seen, now
        return at_rest and now != self._signatures and None not in now

    def renew(self) -> None:
        """Loads the files. New connections go by what is in them; those that are there go on as they are."""
        self._signatures = self._look()
        try:
            loaded = self._load()
        except ValueError as error:
            log.error("listener %s goes on with the certificates that it has: %s", self._listener, error)
            return
        self._loaded = loaded
        log.info("listener %s: the certificates have been loaded anew", self._listener)
        self._tell_dates()

    def _look(self) -> list[Signature | None]:
        config = self.config
        paths = [path for pair in config.certificates for path in (pair.cert, pair.key)]
        return [signature(path) for path in (*paths, *([config.client_ca] if config.client_ca else ()))]

    def _load(self) -> _Loaded:
        """Raises ValueError in words for people."""
        config = self.config
        contexts: dict[frozenset[str], ssl.SSLContext] = {}
        exact: dict[str, ssl.SSLContext] = {}
        under: dict[str, ssl.SSLContext] = {}
        shown = []
        for pair in config.certificates:
            for _, words in pair_problems(pair.cert, pair.key):
                raise ValueError(words)
            own = certificates_in(pair.cert)[0]
            shown.append(own)
            # One for RSA and one for ECDSA may be for the same names: OpenSSL then shows what the client can
            # take.
            names = frozenset(own.names)
            context = contexts.get(names)
            if context is None:
                context = contexts[names] = self._context()
            try:
                context.load_cert_chain(pair.cert, pair.key, ask_nobody)
            except (ssl.SSLError, OSError) as error:  # it has changed since it was judged
                raise ValueError(f"{pair.cert} can't be used: {error}") from error
            for name in names:
                if name.startswith("*."):
                    under.setdefault(name[2:], context)
                else:
                    exact.setdefault(name, context)
        default = next(iter(contexts.values()))
        loaded = _Loaded(default, exact, under, tuple(shown))
        if len(contexts) > 1 or config.strict_sni:
            default.sni_callback = _chooser(loaded, config.strict_sni)
        return loaded

    def _context(self) -> ssl.SSLContext:
        config = self.config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[config.min_version]
        context.set_ciphers(config.ciphers or CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        # All that are left are good: a client without AES in hardware may prefer ChaCha20.
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        if config.client_ca is not None:
            problem = authority_problem(config.client_ca)
            if problem:
                raise ValueError(problem)
            context.load_verify_locations(config.client_ca)
            required = config.client_auth == "require"
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        return context

    def _tell_dates(self) -> None:
        now = time.time()
        for pair, each in zip(self.config.certificates, self.certificates, strict=True):
            if each.not_after < now:
                log.warning("the certificate in %s has expired: clients will refuse it", pair.cert)
            elif each.not_before > now:
                log.warning("the certificate in %s doesn't hold yet: clients will refuse it", pair.cert)


def _chooser(
    loaded: _Loaded, strict: bool
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], int | None]:
    def choose(tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        found = loaded.context_for(name)
        if found is not None:
            tls.context = found
        elif strict:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        return None

    return choose


def server_tls(config: Tls | None, listener: str, running: object) -> ServerTls | None:
    """The TLS of a listener: the running one where that is the same. Raises CannotStart."""
    if config is None:
        return None
    if isinstance(running, ServerTls) and running.is_of(config):
        return running
    return ServerTls(config, listener)


def expiries(tls: ServerTls) -> dict[str, float]:
    """When each certificate expires, in Unix time, by its first name. Where two have the same one, the
    first of both."""
    found: dict[str, float] = {}
    for each in tls.certificates:
        name = each.names[0] if each.names else each.subject
        found[name] = min(found.get(name, each.not_after), each.not_after)
    return found


class Renewal:
    """Looks at the files of all listeners, again and again. `all_tls` is asked each time."""

    def __init__(self, all_tls: Callable[[], Iterable[ServerTls]]) -> None:
        self._all_tls = all_tls
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            for tls in list(self._all_tls()):
                # On a network's file system either may take its time.
                if await asyncio.to_thread(tls.has_changed):
                    await asyncio.to_thread(tls.renew)
