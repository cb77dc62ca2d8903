"""How the API server of a cluster is reached: from a pod, and by a kubeconfig."""

from __future__ import annotations

import ssl
from base64 import b64encode
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from lb.discovery.base import SourceError
from lb.discovery.kubernetes import KubernetesSource, Service
from lb.discovery.kubernetes_access import Access, from_kubeconfig, in_cluster
from tests.discovery.apiserver import api_server, endpoint, next_set, slice_of


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def service_account(folder: Path, authority: trustme.CA) -> None:
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    (folder / "namespace").write_text("greeters\n")
    (folder / "token").write_text("first\n")


async def test_in_a_cluster_with_a_token_that_is_renewed(tmp_path: Path, authority: trustme.CA) -> None:
    service_account(tmp_path, authority)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with api_server(tls) as server:
        port = server.url.rpartition(":")[2]
        environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}
        access = in_cluster(tmp_path, environment)
        async with aclosing(KubernetesSource(Service("m"), lambda: access).watch()) as sets:
            server.list(slice_of("a", endpoint("10.0.0.1")))
            assert await next_set(sets) == ["10.0.0.1:8080"]
            (tmp_path / "token").write_text("second\n")
            server.say({}, status=410)
            server.list(slice_of("a", endpoint("10.0.0.2")))
            assert await next_set(sets) == ["10.0.0.2:8080"]
        assert server.tokens == ["Bearer first", "Bearer second", "Bearer second"]
        assert "/namespaces/greeters/" in server.asked[0]["path"]


async def test_a_server_that_nobody_vouches_for_is_not_believed(
    tmp_path: Path, authority: trustme.CA
) -> None:
    service_account(tmp_path, authority)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    async with api_server(tls) as server:
        environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}
        environment["KUBERNETES_SERVICE_PORT"] = server.url.rpartition(":")[2]
        access = in_cluster(tmp_path, environment)
        async with aclosing(KubernetesSource(Service("m"), lambda: access).watch()) as sets:
            with pytest.raises(SourceError, match="its certificate is not accepted"):
                await next_set(sets)
    assert server.tokens == []


def test_no_pod_and_no_kubeconfig() -> None:
    with pytest.raises(ValueError, match="this is no pod with a ServiceAccount"):
        in_cluster(Path("/nonexistent"), {})


def kubeconfig(server: str, user: dict[str, Any], **cluster: Any) -> str:
    return yaml.safe_dump(
        {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": "ns"}}],
            "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
            "users": [{"name": "u", "user": user}],
        }
    )


async def test_a_kubeconfig_with_a_client_certificate(tmp_path: Path, authority: trustme.CA) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    mine = authority.issue_cert("me@example.org")
    async with api_server(tls) as server:
        path = tmp_path / "kubeconfig"
        user = {
            "client-certificate-data": b64encode(mine.cert_chain_pems[0].bytes()).decode(),
            "client-key-data": b64encode(mine.private_key_pem.bytes()).decode(),
        }
        ca = b64encode(authority.cert_pem.bytes()).decode()
        path.write_text(kubeconfig(server.url, user, **{"certificate-authority-data": ca}))
        access = from_kubeconfig(path)
        assert access.namespace == "ns"
        async with aclosing(KubernetesSource(Service("m"), lambda: access).watch()) as sets:
            server.list(slice_of("a", endpoint("10.0.0.1")))
            assert await next_set(sets) == ["10.0.0.1:8080"]


def test_a_token_in_a_file_of_a_kubeconfig_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(kubeconfig("http://127.0.0.1:1", {"tokenFile": "token"}))
    access = from_kubeconfig(path)
    for token in ("one", "two"):
        (tmp_path / "token").write_text(token + "\n")
        assert access.headers() == [("Authorization", f"Bearer {token}")]


def test_a_token_that_is_none_is_not_sent() -> None:
    access = Access("http://127.0.0.1:1", "default", "a test", None, lambda: "a\r\nb: c")
    with pytest.raises(ValueError, match="can't be in a token"):
        access.headers()


async def test_a_token_that_is_gone_is_told() -> None:
    async with api_server() as server:
        access = Access(server.url, "default", "a test", None, Path("/nonexistent/token").read_text)
        async with aclosing(KubernetesSource(Service("m"), lambda: access).watch()) as sets:
            with pytest.raises(SourceError, match=r"the token of a test can't be read: .*No such file"):
                await next_set(sets)


async def test_a_server_that_is_called_otherwise(tmp_path: Path, authority: trustme.CA) -> None:
    """tls-server-name, and whom we want to be taken for."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.example").configure_cert(tls)
    async with api_server(tls) as server:
        path = tmp_path / "kubeconfig"
        ca = b64encode(authority.cert_pem.bytes()).decode()
        more = {"certificate-authority-data": ca, "tls-server-name": "api.example"}
        path.write_text(kubeconfig(server.url, {"as": "somebody", "as-groups": ["a", "b"]}, **more))
        access = from_kubeconfig(path)
        assert access.headers() == [
            ("Impersonate-User", "somebody"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b"),
        ]  # fmt: skip
        async with aclosing(KubernetesSource(Service("m"), lambda: access).watch()) as sets:
            server.list(slice_of("a", endpoint("10.0.0.1")))
            assert await next_set(sets) == ["10.0.0.1:8080"]


def test_authorities_of_real_clusters_are_taken(tmp_path: Path, authority: trustme.CA) -> None:
    """Many of them lack what Python has insisted on since 3.13."""
    service_account(tmp_path, authority)
    access = in_cluster(tmp_path, {"KUBERNETES_SERVICE_HOST": "127.0.0.1"})
    assert access.tls is not None
    assert not access.tls.verify_flags & ssl.VERIFY_X509_STRICT
    assert access.tls.verify_mode == ssl.CERT_REQUIRED
    assert access.tls.check_hostname


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "can't be read"),
        (kubeconfig("https://x", {}, **{"proxy-url": "http://y"}), "is behind a proxy"),
        ("a: b", "has no context ''"),
        ("[]", "is not one"),
        (kubeconfig("http://x", {"exec": {"command": "aws"}}), "signs in by exec"),
        (kubeconfig("https://x", {"client-certificate-data": "!"}), "certificates can't be read"),
    ],
)
def test_a_kubeconfig_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        from_kubeconfig(path)
    assert words in str(caught.value)
