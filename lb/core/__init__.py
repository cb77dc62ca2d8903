"""Floor 0, pure: what a request, a backend, a pool, a route and a failure are. No I/O, no wall clock."""
