"""Certificates as trustme and cryptography make them."""

from __future__ import annotations

import datetime
import ssl

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from lb.core.x509 import Certificate, NotACertificate, read_certificate

BEGIN, END = datetime.datetime(1970, 1, 2), datetime.datetime(2051, 2, 3, 4, 5, 6)
KEY = ec.generate_private_key(ec.SECP256R1())


def made(subject: x509.Name, *names: x509.GeneralName, key=KEY) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.DER)


def common(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def test_names_dates_and_the_kind_of_key() -> None:
    found = read_certificate(
        made(
            common("A"),
            x509.DNSName("A.Example"),
            x509.DNSName("*.b.example"),
            x509.RFC822Name("a@a.example"),
            x509.IPAddress(__import__("ipaddress").ip_address("2001:db8::1")),
        )
    )
    end = END.replace(tzinfo=datetime.UTC).timestamp()
    assert found == Certificate("CN=A", ("a.example", "*.b.example", "2001:db8::1"), 86400.0, end, "ECDSA")


def test_kinds_of_keys() -> None:
    rsa = trustme.CA().issue_cert("a.example", key_type=trustme.KeyType.RSA)
    assert read_certificate(ssl.PEM_cert_to_DER_cert(rsa.cert_chain_pems[0].bytes().decode())).key == "RSA"
    assert read_certificate(made(common("a"), key=ed25519.Ed25519PrivateKey.generate())).key == "Ed25519"


def test_without_names_of_its_own_the_common_name_is_one() -> None:
    assert read_certificate(made(common("Old.Example"))).names == ("old.example",)
    assert read_certificate(made(common("A person"))).names == ()
    assert read_certificate(made(x509.Name([]))).names == ()


SUBJECTS = [
    (
        [(NameOID.COUNTRY_NAME, "DE"), (NameOID.ORGANIZATION_NAME, "A"), (NameOID.COMMON_NAME, "b")],
        "CN=b,O=A,C=DE",
    ),
    ([(NameOID.COMMON_NAME, 'a,b+c"d\\e<f>g;h')], 'CN=a\\,b\\+c\\"d\\\\e\\<f\\>g\\;h'),
    ([(NameOID.COMMON_NAME, " a b ")], "CN=\\ a b\\ "),
    ([(NameOID.COMMON_NAME, "#a#")], "CN=\\#a#"),
    ([(NameOID.COMMON_NAME, "a\r\nX-Admin: 1")], "CN=a\\0D\\0AX-Admin: 1"),
    ([(NameOID.COMMON_NAME, "ü😀")], "CN=\\C3\\BC\\F0\\9F\\98\\80"),
    ([(NameOID.EMAIL_ADDRESS, "a@a.example")], "emailAddress=a@a.example"),
    ([(NameOID.DOMAIN_COMPONENT, "example"), (NameOID.USER_ID, "7")], "UID=7,DC=example"),
    ([(NameOID.TITLE, "Dr")], "2.5.4.12=#4472"),
]


@pytest.mark.parametrize(("attributes", "text"), SUBJECTS)
def test_the_subject_is_visible_ascii(attributes: list[tuple[x509.ObjectIdentifier, str]], text: str) -> None:
    name = x509.Name([x509.NameAttribute(*each) for each in attributes])
    assert read_certificate(made(name)).subject == text


def test_several_values_at_one_place() -> None:
    both = [x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.USER_ID, "1")]
    found = read_certificate(made(x509.Name([x509.RelativeDistinguishedName(both)]))).subject
    assert found in ("CN=a+UID=1", "UID=1+CN=a")


GOOD = made(common("a"), x509.DNSName("a.example"))


def test_a_part_of_one_is_none() -> None:
    for stop in range(len(GOOD)):
        with pytest.raises(NotACertificate):
            read_certificate(GOOD[:stop])


@given(
    st.binary()
    | st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255)).map(
        lambda each: GOOD[: each[0]] + bytes([GOOD[each[0]] ^ each[1]]) + GOOD[each[0] + 1 :]
    )
)
def test_any_bytes_are_a_certificate_or_none(data: bytes) -> None:
    try:
        found = read_certificate(data)
    except NotACertificate:
        return
    assert all(" " <= character <= "~" for character in found.subject)
