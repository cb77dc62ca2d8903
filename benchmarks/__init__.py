"""This balancer side by side with its peers, in one run: `python -m benchmarks`.

| module | what it is |
|---|---|
| `cases` | what is asked for: few or many headers, small or large bodies |
| `backends` | the three servers behind every proxy |
| `peers` | the proxies: how each is configured for the same job |
| `load` | the load generators, wrk or our own |
| `measure` | one run: start a proxy, check its answers, warm up, load, count its CPU time |
| `report` | rounds to ratios, the table, the JSON |
| `machine` | cores, ports, processes and their CPU time |
| `bare` | the floor: the least that a Python proxy can do |
| `micro` | single hot functions, in nanoseconds |
"""
