"""What the `discovery` of a pool stands for: its sources, ready to be watched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lb.build import spec_of
from lb.config import ConfigError
from lb.config import Pool as PoolConfig
from lb.config.consul import ConsulSection
from lb.config.discovery import DiscoverySource, DnsSection, FileSection, KubernetesSection, RegistrySection
from lb.core.backend import BackendSpec
from lb.core.source import SourceState
from lb.discovery.base import Source, SourceError
from lb.discovery.watch import Beliefs, Watch

if TYPE_CHECKING:
    from lb.control.registry.registry import Registry


# Each imports what it needs only here: who has no such source doesn't pay for it.


def _file(section: FileSection) -> Source:
    from lb.discovery.file import FileSource

    return FileSource(Path(section.path), _backends_reader())


def _backends_reader() -> Callable[[Path], Sequence[BackendSpec]]:
    from lb.config.backends_file import BackendsReader

    reader = BackendsReader(spec_of)

    def read(path: Path) -> Sequence[BackendSpec]:
        try:
            return reader.read(str(path))
        except ConfigError as error:
            first, *others = map(str, error.problems)
            more = f" (and {len(others)} more problem{'s' if len(others) > 1 else ''})" if others else ""
            raise SourceError(first + more) from error

    return read


def _dns(section: DnsSection) -> Source:
    from lb.discovery.dns import DnsSource, Question

    servers = tuple((each.host, each.port) for each in section.resolver)
    return DnsSource(
        Question(
            section.name,
            section.type,
            section.port or 0,
            servers,
            section.timeout,
            section.min_ttl,
            section.max_ttl,
            section.linger or 0.0,
        )
    )


def _kubernetes(section: KubernetesSection, zone: str) -> Source:
    from lb.discovery.kubernetes import KubernetesSource, Service
    from lb.discovery.kubernetes_access import find_access

    service = Service(section.service, section.namespace, section.port)
    return KubernetesSource(service, lambda: find_access(section.kubeconfig, section.context), zone)


def _consul(section: ConsulSection) -> Source:
    import ssl

    from lb.discovery.consul import ConsulSource, Service

    service = Service(section.url, section.service, section.datacenter or "", section.tags, section.passing)
    token = section.token.read if section.token is not None else str
    return ConsulSource(service, token, lambda: ssl.create_default_context(cafile=section.ca))


SOURCES: dict[str, Callable[[Any], Source]] = {
    "file": _file,
    "dns": _dns,
    "consul": _consul,
}
"""How most kinds of sources are made of their sections."""


def _registry(section: RegistrySection, registry: Registry | None) -> Source:
    from lb.discovery.registry import RegistrySource
    from lb.registrar import RegisteredService

    assert registry is not None  # the configuration sees to that
    return RegistrySource(RegisteredService(registry, section.service, section.tags))


def build_watch(pool: str, config: DiscoverySource, registry: Registry | None, zone: str = "") -> Watch:
    """A source of a pool, not watched yet."""
    section = config.section
    state = SourceState(config.kind, section.about, config.kind)
    beliefs = Beliefs(section.on_empty == "keep", section.max_stale or 0.0)
    if config.registry is not None:
        source = _registry(config.registry, registry)
    elif config.kubernetes is not None:
        source = _kubernetes(config.kubernetes, zone)
    else:
        source = SOURCES[config.kind](section)
    return Watch(pool, source, state, beliefs, key=config, zone=_zone_for(config, zone))


def _zone_for(config: DiscoverySource, zone: str) -> str:
    """Our own zone, where the source's answers depend on it."""
    return zone if config.kubernetes is not None else ""


def watches_for(
    pool: str,
    config: PoolConfig,
    running: Sequence[Watch],
    registry: Registry | None = None,
    zone: str = "",
) -> list[Watch]:
    """The watches for a pool's sources: of those that are the same as before the running ones, and new ones,
    not watched yet, for the others. `zone` is where this balancer runs."""
    left, found = list(running), []
    for each in config.discovery:
        ours = each, _zone_for(each, zone)
        same = next((watch for watch in left if (watch.key, watch.zone) == ours), None)
        if same is not None:
            left.remove(same)
        found.append(same or build_watch(pool, each, registry, zone))
    return found


def name_all(watches: Sequence[Watch], but: Sequence[Watch] = ()) -> None:
    """Gives each of a pool's sources its name: its kind, with a number where there are several. `but` some,
    which go on under the name that they have."""
    kinds = Counter(watch.state.kind for watch in watches)
    seen: Counter[str] = Counter()
    for watch in watches:
        kind = watch.state.kind
        seen[kind] += 1
        if watch not in but:
            watch.state.name = kind if kinds[kind] == 1 else f"{kind}-{seen[kind]}"
