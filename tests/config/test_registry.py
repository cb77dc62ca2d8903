"""Where the registry keeps its table, in the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from lb.config import ConfigError, load
from lb.config.registry import Store

POOL = "pools: {greeter: {discovery: [{registry: greeter}]}}\n"


def store(folder: Path, written: str) -> Store:
    path = folder / "lb.yaml"
    path.write_text(f"registry: {{store: {written}}}\n{POOL}")
    registry = load(path).registry
    assert registry is not None
    return registry.store


def test_etcd_with_a_user_and_a_ca(tmp_path: Path) -> None:
    written = "{etcd: [https://a:2379/], user: lb, password: {file: secret}, ca: ca.pem}"
    found = store(tmp_path, written)
    (tmp_path / "secret").write_text("s3cret\n")
    assert (found.etcd, found.user, found.ca) == (("https://a:2379",), "lb", str(tmp_path / "ca.pem"))
    assert found.password is not None
    assert found.password.read() == "s3cret"
    assert "s3cret" not in str(found.model_dump())
    assert found.model_dump()["password"]["file"] == str(tmp_path / "secret")
    assert store(tmp_path, "memory").model_dump() == "memory"
    assert store(tmp_path, "{etcd: [http://a:1]}").model_dump() == {"etcd": ("http://a:1",)}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("{memory: memory, file: x}", "needs one of memory, {file: PATH} or {etcd: [URL]}"),
        ("{user: lb}", "needs one of memory"),
        ("{file: x, user: lb}", "user: is for etcd only"),
        ("{file: x, ca: y}", "ca: is for etcd only"),
        ("{etcd: [http://a:1], user: lb}", "needs both user and password, or neither"),
        ("{etcd: [http://a:1], password: {env: X}}", "needs both user and password, or neither"),
        ("{etcd: [http://a:1], user: lb, password: s3cret}", "must not stand in this file itself"),
        ("{etcd: [http://a:1], usr: lb, password: {env: X}}", "did you mean user"),
        ("{etcd: ['http://lb:s3cret@a:1']}", "must be a URL without a user"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, written: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        store(tmp_path, written)
    assert words in str(caught.value)
