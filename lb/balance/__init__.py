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
    module = import_module(module_name)
    found = getattr(module, class_name, None)
    if found is None:
        there = [name for name, each in vars(module).items() if _is_own(each, module.__name__)]
        what = f" (it has: {', '.join(there)})" if there else ""
        raise AttributeError(f"it has no class {class_name}{what}")
    if not (isinstance(found, type) and issubclass(found, Balancer)):
        raise TypeError(f"{name} is not a subclass of lb.balance.Balancer")
    return found


def _is_own(found: object, module: str) -> bool:
    """Whether it is a policy of this very module, and none that it has imported."""
    return isinstance(found, type) and issubclass(found, Balancer) and found.__module__ == module
