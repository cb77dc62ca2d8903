"""A layer-7 load balancer: costs what nginx costs, explains every pick, takes policies of a few lines."""

__version__ = "0.1.0"


def compiled() -> bool:
    """Whether the way of a request is compiled, or the interpreter reads it (which does the same, slower)."""
    from lb.core import identity

    return not identity.__file__.endswith(".py")
