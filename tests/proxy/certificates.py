"""Certificates for tests: a CA of our own, and what it signs."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Certificates:
    """A CA with its files in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.ca = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, *names: str, by: trustme.CA | None = None, **options: object) -> trustme.LeafCert:
        return (by or self.authority).issue_cert(*(names or ("127.0.0.1", "localhost")), **options)  # type: ignore[arg-type]

    def server(
        self, leaf: trustme.LeafCert | None = None, ask: ssl.VerifyMode | None = None
    ) -> ssl.SSLContext:
        """What a server needs; `ask` is whether it asks for a client certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (leaf or self.issue()).configure_cert(context)
        if ask is not None:
            context.verify_mode = ask
            self.authority.configure_trust(context)
        return context

    def write(self, name: str, leaf: trustme.LeafCert) -> tuple[Path, Path]:
        """The files of a certificate and of its key."""
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        cert.write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(key))
        return cert, key
