"""A layer-7 load balancer: costs what nginx costs, explains every pick, takes policies of a few lines."""

__version__ = "0.1.0"
