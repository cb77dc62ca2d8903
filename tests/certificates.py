"""Certificates for tests: an authority made for the occasion, and files as operators have them."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

LONG_AGO = datetime.datetime(2020, 1, 1)


def write_pair(directory: Path, ca: trustme.CA, name: str, *names: str, rsa: bool = False) -> tuple[str, str]:
    """A certificate for these names, with its key: `NAME.crt` and `NAME.key`."""
    kind = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
    issued = ca.issue_cert(*(names or (name,)), key_type=kind)
    cert, key = directory / f"{name}.crt", directory / f"{name}.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return str(cert), str(key)


def write_ca(directory: Path, ca: trustme.CA, name: str = "ca") -> str:
    path = directory / f"{name}.crt"
    ca.cert_pem.write_to_path(path)
    return str(path)


def self_signed(directory: Path, name: str, small: bool = False, **dates: datetime.datetime) -> Path:
    """A certificate and its key in one file; `small`: with a key that nobody takes any more."""
    key = rsa.generate_private_key(65537, 1024) if small else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = dates.get("begin", LONG_AGO)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begin)
        .not_valid_after(dates.get("end", datetime.datetime(2999, 1, 1)))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


def client_context(ca: trustme.CA | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """How a client sees it that trusts this authority; without one, it takes anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        ca.configure_trust(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
