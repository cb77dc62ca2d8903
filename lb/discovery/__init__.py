"""Where a pool's backends come from at run time: one file for each kind of source. See docs/discovery.md."""
