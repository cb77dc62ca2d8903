"""Floor 1: balancing policies, one file each. A file in this folder is registered by being there."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from lb.balance.base import Balancer, _registered

__all__ = ["Balancer", "policies", "policy_class"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def policies() -> dict[str, type[Balancer]]:
    """All registered policies by name."""
    return dict(sorted(_registered.items()))


def policy_class(name: str) -> type[Balancer]:
    """The policy of a registered name, or of `module:Class`.

    Raises KeyError for a name that nobody registered, ImportError or AttributeError for a module or class
    that isn't there, and TypeError for one that is no Balancer.
    """
    if ":" not in name:
        return _registered[name]
    module_name, _, class_name = name.partition(":")
    found = getattr(import_module(module_name), class_name)
    if not (isinstance(found, type) and issubclass(found, Balancer)):
        raise TypeError(f"{name} is not a subclass of lb.balance.Balancer")
    return found
