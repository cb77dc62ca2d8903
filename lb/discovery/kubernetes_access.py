"""How to reach the API server of a cluster: as a pod in it, or by a kubeconfig."""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from base64 import b64decode
from binascii import Error as NoBase64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_TOKEN = re.compile(r"[!-~]*")  # what is visible, without spaces

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Access:
    """The server's URL, the namespace where nothing else is said, and who we are.

    `token` is asked anew each time, since tokens are renewed while we run; empty where there is none. `about`
    says where all this is from, and `server_name` what the server's certificate says, where that is not its
    host. `instead_of_us` is whom we want to be taken for (Impersonate-User and so on).
    """

    server: str
    namespace: str
    about: str
    tls: ssl.SSLContext | None = None
    token: Callable[[], str] = str
    server_name: str = ""
    instead_of_us: Sequence[tuple[str, str]] = ()

    def headers(self) -> list[tuple[str, str]]:
        """What proves who we are. Raises OSError or ValueError where the token can't be read."""
        token = self.token()
        if not _TOKEN.fullmatch(token):
            raise ValueError("it is none: there is something in it that can't be in a token")
        return [*([("Authorization", f"Bearer {token}")] if token else ()), *self.instead_of_us]


def in_cluster(folder: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ) -> Access:
    """As the ServiceAccount of our pod. Raises ValueError where this is no pod."""
    host, port = (
        environment.get("KUBERNETES_SERVICE_HOST", ""),
        environment.get("KUBERNETES_SERVICE_PORT", "443"),
    )
    token = folder / "token"
    if not host or not token.exists():
        raise ValueError(
            "this is no pod with a ServiceAccount (automountServiceAccountToken), and there is no "
            "kubeconfig: write kubeconfig: PATH, or set KUBECONFIG"
        )
    try:
        namespace = (folder / "namespace").read_text().strip() or "default"
        tls = _lenient(ssl.create_default_context(cafile=str(folder / "ca.crt")))
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"the ServiceAccount in {folder} can't be read: {error}") from error
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(server, namespace, str(token), tls, lambda: token.read_text().strip())


def find_access(kubeconfig: str = "", context: str = "") -> Access:
    """By the kubeconfig that is named; else as a pod; else by KUBECONFIG, or ~/.kube/config. Raises
    ValueError."""
    if kubeconfig:
        return from_kubeconfig(Path(kubeconfig), context)
    if "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists():
        return in_cluster()
    named = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    path = Path(named[0]) if named else Path.home() / ".kube" / "config"
    return from_kubeconfig(path, context) if named or path.exists() else in_cluster()


def from_kubeconfig(path: Path, context: str = "") -> Access:
    """By a kubeconfig, in its current context or another one. Raises ValueError."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"the kubeconfig {path} can't be read: {error}") from error
    try:
        return _access(path, data, context or data.get("current-context") or "")
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the kubeconfig {path} is not one: {type(error).__name__}: {error}") from error


def _access(path: Path, data: Mapping[str, Any], name: str) -> Access:
    context = _named(path, data, "context", name)
    cluster = _named(path, data, "cluster", context["cluster"])
    user = _named(path, data, "user", context["user"]) if context.get("user") else {}
    for unknown in ("exec", "auth-provider", "username"):
        if unknown in user:
            raise ValueError(
                f"the kubeconfig {path}: the user {context['user']} signs in by {unknown}, which is not "
                "known here; use a token, a tokenFile or a client certificate"
            )
    if cluster.get("proxy-url"):
        raise ValueError(
            f"the kubeconfig {path}: the cluster {context['cluster']} is behind a proxy (proxy-url), "
            "which is not known here"
        )
    server = str(cluster["server"]).rstrip("/")
    return Access(
        server,
        context.get("namespace") or "default",
        str(path),
        _tls(path, cluster, user) if server.startswith("https:") else None,
        _token(path, user),
        str(cluster.get("tls-server-name") or ""),
        _instead_of_us(user),
    )


def _instead_of_us(user: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    if not user.get("as"):
        return ()
    groups = [("Impersonate-Group", str(group)) for group in user.get("as-groups") or ()]
    return (("Impersonate-User", str(user["as"])), *groups)


def _named(path: Path, data: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    found = [each[kind] for each in data.get(f"{kind}s") or () if each.get("name") == name]
    if not found:
        names = ", ".join(str(each.get("name")) for each in data.get(f"{kind}s") or ())
        raise ValueError(f"the kubeconfig {path} has no {kind} {name!r} (there is: {names or 'none'})")
    return found[0] or {}


def _token(path: Path, user: Mapping[str, Any]) -> Callable[[], str]:
    if user.get("tokenFile"):
        file = path.parent / str(user["tokenFile"])
        return lambda: file.read_text().strip()
    token = str(user.get("token") or "")
    return lambda: token


def _tls(path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    ca, ca_data = cluster.get("certificate-authority"), cluster.get("certificate-authority-data")
    try:
        tls = ssl.create_default_context(
            cafile=str(path.parent / str(ca)) if ca and not ca_data else None,
            cadata=_text(ca_data) if ca_data else None,
        )
        _lenient(tls)
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        certificate = _bytes(path, user, "client-certificate")
        if certificate is not None:
            _load(tls, certificate, _bytes(path, user, "client-key") or b"")
    except (OSError, ssl.SSLError, NoBase64, ValueError) as error:
        raise ValueError(f"the kubeconfig {path}: certificates can't be read: {error}") from error
    return tls


def _lenient(tls: ssl.SSLContext) -> ssl.SSLContext:
    """Takes the certificates that clusters really have: many of their authorities lack a field that RFC 5280
    asks for and Python has insisted on since 3.13. Go, which Kubernetes is written in, does not."""
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return tls


def _text(data: object) -> str:
    return b64decode(str(data)).decode("ascii")


def _bytes(path: Path, user: Mapping[str, Any], key: str) -> bytes | None:
    if user.get(f"{key}-data"):
        return b64decode(str(user[f"{key}-data"]))
    return (path.parent / str(user[key])).read_bytes() if user.get(key) else None


def _load(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Python reads a client's key from files only."""
    with tempfile.NamedTemporaryFile() as file:  # for nobody but us (0600), and gone at once
        file.write(certificate + b"\n" + key)
        file.flush()
        tls.load_cert_chain(file.name)
