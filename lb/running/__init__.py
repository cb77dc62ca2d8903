"""A balancer while it runs: its parts, and how another configuration takes their place."""
