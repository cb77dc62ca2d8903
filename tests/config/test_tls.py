"""TLS and the PROXY protocol of a listener: what may be written, and what is said of mistakes."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from lb.config import ConfigError, Listener, ProxyProtocol, loads
from tests.certificates import self_signed, write_ca, write_pair

CA = trustme.CA()


def listener(text: str) -> Listener:
    return loads(
        f"listeners: [{{bind: 127.0.0.1:1, {text}}}]\npools: {{p: {{backends: [h:1]}}}}\n"
    ).listeners[0]


def complaints(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        listener(text)
    return [problem.message.removeprefix("listeners[0].") for problem in caught.value.problems]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A good certificate, by paths that are relative to where we are."""
    write_pair(tmp_path, CA, "tls")
    write_ca(tmp_path, CA)
    monkeypatch.chdir(tmp_path)
    return "{cert: tls.crt, key: tls.key}"


def test_the_least_that_is_to_be_said(pair: str) -> None:
    tls = listener(f"tls: {{certificates: [{pair}]}}").tls
    assert tls is not None
    assert (tls.min_version, tls.client_ca, tls.client_auth, tls.strict_sni, tls.ciphers) == (
        "1.2", None, "require", False, None,
    )  # fmt: skip
    assert (tls.certificates[0].cert, tls.certificates[0].key) == ("tls.crt", "tls.key")
    assert listener("tls: off").tls is None


def test_all_of_it(pair: str) -> None:
    tls = listener(
        f'tls: {{certificates: [{pair}], client_ca: ca.crt, client_auth: optional, min_version: "1.3", '
        "strict_sni: true, ciphers: ECDHE+AESGCM}"
    ).tls
    assert tls is not None
    assert (tls.client_ca, tls.client_auth, tls.min_version) == ("ca.crt", "optional", "1.3")
    assert listener("tls: off, timeouts: {handshake: 2s}, limits: {handshakes: 9}").limits.handshakes == 9


def test_one_file_may_hold_both(tmp_path: Path) -> None:
    path = self_signed(tmp_path, "a.example")
    assert listener(f"tls: {{certificates: [{{cert: {path}, key: {path}}}]}}").tls is not None


@pytest.mark.usefixtures("pair")
def test_files_that_are_not_there_or_no_files(tmp_path: Path) -> None:
    assert complaints("tls: {certificates: [{cert: no.crt, key: no.key}], client_ca: no.ca}") == [
        "tls.certificates[0].cert: there is no file no.crt",
        "tls.certificates[0].key: there is no file no.key",
        "tls.client_ca: there is no file no.ca",
    ]
    assert complaints("tls: {certificates: [{cert: /dev/zero, key: .}]}") == [
        "tls.certificates[0].cert: /dev/zero is no file",
        "tls.certificates[0].key: . is no file",
    ]
    (tmp_path / "big").write_bytes(bytes(2**20 + 1))
    assert complaints("tls: {certificates: [{cert: big, key: tls.key}]}") == [
        "tls.certificates[0].cert: big is larger than 1 MiB"
    ]


@pytest.mark.usefixtures("pair")
def test_files_that_hold_something_else(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("nothing of the kind")
    (tmp_path / "damaged").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    none = "has no certificate in it (PEM is wanted: -----BEGIN CERTIFICATE-----)"
    assert complaints("tls: {certificates: [{cert: text, key: tls.key}]}") == [
        f"tls.certificates[0].cert: text {none}"
    ]
    assert complaints("tls: {certificates: [{cert: tls.crt, key: text}]}") == [
        "tls.certificates[0].key: text has no private key in it (PEM is wanted: -----BEGIN PRIVATE KEY-----)"
    ]
    (damaged,) = complaints("tls: {certificates: [{cert: damaged, key: tls.key}]}")
    assert damaged.startswith("tls.certificates[0].cert: certificate 1 in damaged is damaged: ")
    assert complaints("tls: {certificates: [{cert: tls.crt, key: tls.key}], client_ca: tls.key}") == [
        f"tls.client_ca: tls.key {none}"
    ]


@pytest.mark.usefixtures("pair")
def test_keys_that_can_not_be_used(tmp_path: Path) -> None:
    write_pair(tmp_path, CA, "other")
    write_pair(tmp_path, CA, "kind", rsa=True)
    for name in ("other", "kind"):
        assert complaints(f"tls: {{certificates: [{{cert: tls.crt, key: {name}.key}}]}}") == [
            f"tls.certificates[0].key: {name}.key isn't the key of the certificate in tls.crt"
        ]
    key = serialization.load_pem_private_key((tmp_path / "tls.key").read_bytes(), None)
    (tmp_path / "locked.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    (locked,) = complaints("tls: {certificates: [{cert: tls.crt, key: locked.key}]}")
    assert locked.startswith("tls.certificates[0].key: locked.key is encrypted, and nobody is there to type")
    weak = self_signed(tmp_path, "weak", small=True)
    (found,) = complaints(f"tls: {{certificates: [{{cert: {weak}, key: {weak}}}]}}")
    assert found == f"tls.certificates[0].cert: {weak} is too weak by today's measure: ee key too small"


def test_a_certificate_that_would_never_be_shown(pair: str, tmp_path: Path) -> None:
    again = write_pair(tmp_path, CA, "again", "tls")
    rsa = write_pair(tmp_path, CA, "rsa", "tls", rsa=True)
    text = "tls: {{certificates: [{}, {{cert: {}, key: {}}}]}}"
    assert listener(text.format(pair, *rsa)).tls is not None
    assert complaints(text.format(pair, *again)) == [
        "tls.certificates[1]: is for the same names as certificates[0], with the same kind of key (ECDSA)"
    ]


def test_what_does_not_fit_together(pair: str) -> None:
    assert complaints(f"tls: {{certificates: [{pair}], client_auth: require}}") == [
        "tls.client_auth: needs client_ca: the authority that clients are certified by"
    ]
    assert complaints(f"tls: {{certificates: [{pair}], ciphers: NONE_SUCH}}") == [
        "tls.ciphers: names no cipher that OpenSSL knows (see openssl ciphers -v)"
    ]
    assert complaints(f"tls: {{certificates: [{pair}], min_version: 1.1}}") == [
        "tls.min_version: must be 1.2 or 1.3, not 1.1 (did you mean 1.3?)"
    ]
    assert complaints("tls: {certificates: []}") == ["tls.certificates: needs at least one"]
    assert complaints("tls: {client_ca: ca.crt}") == [
        "tls: needs certificates, as in certificates: [{cert: tls.crt, key: tls.key}]"
    ]


def test_the_proxy_protocol() -> None:
    for text in ("false", "off"):
        assert listener(f"proxy_protocol: {text}").proxy_protocol is None
    for text in ("true", "on", "{}"):
        assert listener(f"proxy_protocol: {text}").proxy_protocol == ProxyProtocol()
    found = listener("proxy_protocol: {from: [10.0.0.0/8, 192.0.2.1]}").proxy_protocol
    assert found is not None
    assert found.senders == (ip_network("10.0.0.0/8"), ip_network("192.0.2.1"))
    assert complaints("proxy_protocol: v2") == [
        "proxy_protocol: must be true, false or a mapping, not 'v2' (did you mean true?)"
    ]
    assert complaints("proxy_protocol: {form: []}") == [
        "proxy_protocol.form: unknown key (did you mean from?)"
    ]
    text = "listeners: [{bind: unix:/a, proxy_protocol: {from: [10.0.0.0/8]}}]\n"
    with pytest.raises(ConfigError, match="a unix socket's clients have no addresses"):
        loads(text + "pools: {p: {backends: [h:1]}}\n")
