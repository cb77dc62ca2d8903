"""Where two configurations differ, in short; and how far a process can go from one to the other."""

from __future__ import annotations

from collections.abc import Iterator

from lb.config import Config, Pool
from lb.config.section import Section


def without_restart(old: Config, new: Config) -> tuple[Config, list[str]]:
    """The new one as far as a process that runs can go by it, and in words what it can't change."""
    kept = []
    if new.workers != old.workers:
        kept.append(f"workers is still {old.workers}: it takes a restart")
        new = new.model_copy(update={"workers": old.workers})
    if old.registry is not None and new.registry is not None and old.registry.store != new.registry.store:
        kept.append("registry.store is the one from before: it takes a restart")
        registry = new.registry.model_copy(update={"store": old.registry.store})
        new = new.model_copy(update={"registry": registry})
    return new, kept


def changed_keys(old: Config, new: Config) -> Iterator[str]:
    """Where two configurations differ, in short: `drain.timeout`, `pools.greeter.backends (1 new)`."""
    for key in Config.model_fields:
        before, after = getattr(old, key), getattr(new, key)
        if before == after:
            continue
        if key == "pools":
            yield from _changed_pools(old, new)
        else:
            yield from _changed_section(key, before, after)


def _changed_section(key: str, before: object, after: object) -> Iterator[str]:
    if not isinstance(before, Section) or not isinstance(after, Section):
        yield key
        return
    for name in type(before).model_fields:
        if getattr(before, name) != getattr(after, name, None):
            yield f"{key}.{name}"


def _changed_pools(old: Config, new: Config) -> Iterator[str]:
    for name in dict.fromkeys((*old.pools, *new.pools)):
        key = f"pools.{name}"
        if name not in old.pools or name not in new.pools:
            yield f"{key} ({'new' if name in new.pools else 'gone'})"
            continue
        before, after = old.pools[name], new.pools[name]
        for part in Pool.model_fields:
            if part == "backends" and before.backends != after.backends:
                yield f"{key}.backends ({_changed_backends(before, after)})"
            elif getattr(before, part) != getattr(after, part):
                yield from _changed_section(f"{key}.{part}", getattr(before, part), getattr(after, part))


def _changed_backends(before: Pool, after: Pool) -> str:
    old = {each.id: each for each in before.backends}
    new = {each.id: each for each in after.backends}
    fresh = sum(name not in old for name in new)
    gone = sum(name not in new for name in old)
    other = sum(name in old and old[name] != each for name, each in new.items())
    counts = [
        f"{count} {word}" for count, word in ((fresh, "new"), (gone, "gone"), (other, "changed")) if count
    ]
    return ", ".join(counts) or "in another order"
