"""Each kind of mistake: its exact place and its words."""

import pytest

from tests.config.helpers import assert_problems, problems

POOL = "pools: {p: {backends: ['h:1']}}\n"
DURATION = "must be a duration such as 250ms, 5s or 1m, not"


def pool(line: str) -> str:
    return f"pools:\n  p:\n    backends: ['h:1']\n    {line}\n"


def backends(*lines: str) -> str:
    return "pools:\n  p:\n    backends:\n" + "".join(f"      - {line}\n" for line in lines)


def route(line: str) -> str:
    return f"{POOL}routes:\n  - {line}\n"


LISTENERS = [
    ("listeners: ▸[]", "listeners: needs at least one"),
    (
        "listeners: ▸0.0.0.0:8080",
        "listeners: must be a list, not '0.0.0.0:8080' (did you mean [0.0.0.0:8080]?)",
    ),
    ("listeners: ▸{}", "listeners: must be a list, not a mapping"),
    ("listeners:▸", "listeners: must be a list, not nothing"),
    ("listeners: [▸{}]", "listeners[0]: needs an address, as in bind: 0.0.0.0:8080"),
    ("listeners: [{▸bnid: 'h:1'}]", "listeners[0].bnid: unknown key (did you mean bind?)"),
    (
        "listeners:\n  - ▸bind:8080",
        "listeners[0]: must be a mapping, not 'bind:8080' (did you mean bind: 8080?)",
    ),
    (
        "listeners: [{bind: ▸8080}]",
        "listeners[0].bind: must be host:port, not a port alone (did you mean 0.0.0.0:8080?)",
    ),
    ("listeners: [{bind: ▸[a]}]", "listeners[0].bind: must be host:port or unix:PATH, not a list"),
    (
        "listeners: [{bind: ▸unix:lb.sock}]",
        "listeners[0].bind: must have an absolute path, as in unix:/run/lb.sock, not 'lb.sock'",
    ),
    (
        "listeners: [{bind: ▸/run/lb.sock}]",
        "listeners[0].bind: must be host:port or unix: and a path, not a path alone "
        "(did you mean unix:/run/lb.sock?)",
    ),
    (
        "listeners: [{bind: unix:/a}, {bind: unix:/b}, {bind: ▸unix:/a}]",
        "listeners[2].bind: unix:/a is here twice: listeners[0] has it too",
    ),
    (
        "listeners: [{bind: h:1}, {bind: h:0}, {bind: h:0}, {bind: ▸H:1}]",
        "listeners[3].bind: h:1 is here twice: listeners[0] has it too",
    ),
    (
        "listeners: [{bind: h:1}]\nadmin: {bind: ▸'h:1', token: {env: T}}",
        "admin.bind: h:1 is here twice: listeners[0] has it too",
    ),
    (
        "listeners: [{bind: ▸127.0.0.1:9901}]",
        "listeners[0].bind: 127.0.0.1:9901 is where admin listens if admin.bind isn't given",
    ),
    (
        "admin: {bind: ▸0.0.0.0:8080, token: {env: T}}",
        "admin.bind: 0.0.0.0:8080 is here twice: listeners[0] has it too",
    ),
]

TIMEOUTS = [
    (
        f"listeners: [{{bind: 'h:1', timeouts: {{keepalive:{written}}}}}]",
        f"listeners[0].timeouts.keepalive: {words}",
    )
    for written, words in [
        (" ▸75", f"{DURATION} '75' (did you mean 75s?)"),
        (" ▸0s", "must be more than 0s"),
        (" ▸9999h", "must be at most 8760h, not '9999h'"),
        (" ▸[1s]", f"{DURATION} a list"),
        ("▸", f"{DURATION} nothing"),
        (" ▸off", f"{DURATION} 'off'"),
    ]
]

LIMITS = [
    (f"listeners: [{{bind: 'h:1', limits: {{{key}: {written}}}}}]", f"listeners[0].limits.{key}: {words}")
    for key, written, words in [
        ("request_line", "▸255", "must be a size from 256 to 1MiB, not 255"),
        ("request_line", "▸2MiB", "must be a size from 256 to 1MiB, not '2MiB'"),
        (
            "request_line",
            "▸8k",
            "must be a size such as 64KiB, 1MiB or a number of bytes, not '8k' (did you mean 8KiB?)",
        ),
        ("header_bytes", "▸{}", "must be a size such as 64KiB, 1MiB or a number of bytes, not a mapping"),
        ("header_count", "▸0", "must be a whole number from 1 to 10000, not 0"),
        ("header_count", "▸many", "must be a whole number from 1 to 10000, not 'many'"),
        ("body", "▸none", "must be a size or off, not 'none' (did you mean off?)"),
        ("body", "▸0", "must be a size from 1 to 9007199254740991, not 0"),
    ]
]

TOP = [
    ("expose_backend: ▸yes", "expose_backend: must be true or false, not 'yes' (did you mean true?)"),
    ("expose_backend: ▸1", "expose_backend: must be true or false, not 1"),
    ("expose_backend: ▸'true'", "expose_backend: must be true or false, not the text 'true'"),
    ("request_id: ▸X-Request-ID", "request_id: must be a mapping, not 'X-Request-ID'"),
    ("request_id: {header: ▸a b}", "request_id.header: must be the name of a header, not 'a b'"),
    (
        "request_id: {header: ▸Content-Length}",
        "request_id.header: can't be Content-Length, which means something else in HTTP",
    ),
    ("request_records: ▸-1", "request_records: must be a whole number from 0 to 10000000, not -1"),
    (
        "request_records: ▸10000001",
        "request_records: must be a whole number from 0 to 10000000, not 10000001",
    ),
    ("access_log: ▸'-'", "access_log: must be a mapping or off, not '-'"),
    ("access_log: ▸on", "access_log: must be a mapping or off, not on"),
    ("access_log: ▸no", "access_log: must be a mapping or off, not 'no' (did you mean off?)"),
    ("access_log: ▸[]", "access_log: must be a mapping, not a list"),
    ("access_log:▸", "access_log: must be a mapping or off, not nothing (did you mean off?)"),
    ("access_log: {path: ▸''}", "access_log.path: must be the path of a file, not ''"),
    ("access_log: {format: ▸jsn}", "access_log.format: must be json, not 'jsn' (did you mean json?)"),
    ("drain: ▸5s", "drain: must be a mapping, not '5s'"),
    ("drain: {timeout: ▸-1s}", f"drain.timeout: {DURATION} '-1s'"),
    ("drain: {▸dealy: 1s}", "drain.dealy: unknown key (did you mean delay?)"),
    (
        "trusted_proxies: ▸10.0.0.0/8",
        "trusted_proxies: must be a list, not '10.0.0.0/8' (did you mean [10.0.0.0/8]?)",
    ),
    (
        "trusted_proxies: [10.0.0.1, ▸10.1.2.3/8]",
        "trusted_proxies[1]: must be a network, but bits behind its mask are set (did you mean 10.0.0.0/8?)",
    ),
    ("routes: ▸{}", "routes: must be a list, not a mapping"),
    ("routes:▸", "routes: must be a list, not nothing"),
    ("▸reload: on", "reload: unknown key"),
    ("▸worker: 2", "worker: unknown key (did you mean workers?)"),
    ("workers: ▸0", "workers: must be a whole number from 1 to 256 or auto, not 0"),
    ("workers: ▸257", "workers: must be a whole number from 1 to 256 or auto, not 257"),
    ("workers: ▸2.5", "workers: must be a whole number from 1 to 256 or auto, not 2.5"),
    (
        "workers: ▸Auto",
        "workers: must be a whole number from 1 to 256 or auto, not 'Auto' (did you mean auto?)",
    ),
    ("workers: ▸[auto]", "workers: must be a whole number from 1 to 256 or auto, not a list"),
    ("workers:▸", "workers: must be a whole number from 1 to 256 or auto, not nothing"),
    ("watch: ▸yes", "watch: must be true or false, not 'yes' (did you mean true?)"),
    ("watch: ▸5s", "watch: must be true or false, not '5s'"),
    ("max_connections: ▸0", "max_connections: must be a whole number from 1 to 10000000, not 0"),
    (
        "max_connections: ▸none",
        "max_connections: must be a whole number or off, not 'none' (did you mean off?)",
    ),
]

ADMIN = [
    ("admin: {bind: ▸unix:/run/a}", "admin.bind: must be host:port: a unix socket can't stand here"),
    (
        "admin: {bind: ▸0.0.0.0:9901}",
        "admin.bind: 0.0.0.0:9901 can be reached from other machines, so admin needs a token: "
        "token: {file: PATH} or {env: NAME}; or bind it to 127.0.0.1",
    ),
    (
        "admin: {token: ▸s3cr3t}",
        "admin.token: must not stand in this file itself: put it into a file and write {file: PATH}, "
        "or into an environment variable and write {env: NAME}",
    ),
    ("admin: {▸token: {}}", "admin.token: needs one of the two: {file: PATH} or {env: NAME}"),
    ("admin: {▸token: {file: a, env: B}}", "admin.token: needs one of the two: {file: PATH} or {env: NAME}"),
    (
        "admin: {token: {env: ▸s3cr3t!}}",
        "admin.token.env: must be the name of an environment variable: letters, digits and _",
    ),
    ("admin: {token: {file:▸ }}", "admin.token.file: must be a path, not nothing"),
]

PREFIX = "must be a path as it stands in a request, without ? and #, not"
ROUTES = [
    ("{pool: ▸q}", "pool: there is no pool 'q' (there are: p)"),
    ("{pool: ▸P}", "pool: there is no pool 'P' (did you mean p?)"),
    ("{pool: ▸[p]}", "pool: must be the name of a pool, not a list"),
    ("{split: {p: 1, ▸pp: 1}}", "split.pp: there is no pool 'pp' (did you mean p?)"),
    ("{split: {p: ▸-1}}", "split.p: must be a whole number from 0 to 1000000, not -1"),
    ("{split: ▸{p: 0}}", "split: gives every pool the share 0, so that no request could go anywhere"),
    ("{split: ▸{}}", "split: needs at least one"),
    ("{split: ▸p}", "split: must be a mapping, not 'p'"),
    ("{pool: p, ▸split: {p: 1}}", "split: stands beside pool, but a route has only one of the two"),
    (
        "▸{}",
        "needs a pool, as in pool: NAME, or a split, as in split: {NAME: 95, OTHER: 5}, "
        "or an answer: respond or redirect",
    ),
    ("{▸pol: p}", "pol: unknown key (did you mean pool?)"),
    ("▸p", "must be a mapping, not 'p'"),
    ("{pool: p, match: ▸/v1}", "match: must be a mapping, not '/v1'"),
    (
        "{pool: p, match: {▸path: /v1}}",
        "match.path: unknown key (known here: hosts, path_prefix, methods, headers, scheme)",
    ),
    (
        "{pool: p, match: {path_prefix: ▸v1}}",
        "match.path_prefix: must start with a /, not 'v1' (did you mean /v1?)",
    ),
    ("{pool: p, match: {path_prefix: ▸/a b}}", f"match.path_prefix: {PREFIX} '/a b'"),
    ("{pool: p, match: {path_prefix: ▸'/a?b'}}", f"match.path_prefix: {PREFIX} '/a?b'"),
    ("{pool: p, match: {path_prefix: ▸/ä}}", f"match.path_prefix: {PREFIX} '/ä'"),
    (
        "{pool: p, match: {path_prefix: ▸/a/../b}}",
        "match.path_prefix: can't have an empty, . or .. part, as '/a/../b' has",
    ),
    (
        "{pool: p, match: {path_prefix: ▸/a//b}}",
        "match.path_prefix: can't have an empty, . or .. part, as '/a//b' has",
    ),
    ("{pool: p, match: {methods: ▸GET}}", "match.methods: must be a list, not 'GET' (did you mean [GET]?)"),
    (
        "{pool: p, match: {methods: [▸get]}}",
        "match.methods[0]: 'get' is no method: methods are case-sensitive (did you mean GET?)",
    ),
    ("{pool: p, match: {methods: [▸G T]}}", "match.methods[0]: must be a method such as GET, not 'G T'"),
    (
        "{pool: p, match: {hosts: [▸a:80]}}",
        "match.hosts[0]: must be a host without a port, not 'a:80' (did you mean a?)",
    ),
    (
        "{pool: p, match: {headers: {▸a b: 1}}}",
        "match.headers['a b']: must be the name of a header, not 'a b'",
    ),
    (
        "{pool: p, match: {headers: {X-A: 1, ▸x-a: 2}}}",
        "match.headers.x-a: the header 'x-a' is here twice, since case doesn't matter",
    ),
    ("{pool: p, match: {headers: {x:▸ }}}", "match.headers.x: must be a header value, not nothing"),
    (
        "{pool: p, match: {headers: {x: ▸ä}}}",
        "match.headers.x: must be visible ASCII, as it stands in the header, not 'ä'",
    ),
    (
        "{pool: p, strip_prefix: ▸/v1}",
        "strip_prefix: needs match.path_prefix: /v1, else there are paths that don't begin with it",
    ),
    (
        "{pool: p, match: {path_prefix: /v10}, strip_prefix: ▸/v1}",
        "strip_prefix: must be what match.path_prefix '/v10' begins with, not '/v1'",
    ),
    (
        "{pool: p, match: {path_prefix: /v1}, strip_prefix: ▸/v1/a}",
        "strip_prefix: must be what match.path_prefix '/v1' begins with, not '/v1/a'",
    ),
    ("{pool: p, match: {path_prefix: /v1}, strip_prefix: ▸/}", "strip_prefix: strips nothing; leave it out"),
    (
        "{pool: p, match: {path_prefix: /v1}, strip_prefix: ▸v1}",
        "strip_prefix: must start with a /, not 'v1' (did you mean /v1?)",
    ),
]

STATUSES = "must be statuses such as 200-399 or 200,204,300-399, not"
ROUTE_RULES = [
    ("timeouts: ▸10s", "timeouts: must be a mapping, not '10s'"),
    ("timeouts: ▸off", "timeouts: must be a mapping, not off"),
    ("timeouts: {total: ▸10}", f"timeouts.total: {DURATION} '10' (did you mean 10s?)"),
    ("timeouts: {total: ▸0s}", "timeouts.total: must be more than 0s"),
    (
        "timeouts: {total: ▸never}",
        "timeouts.total: must be a duration or off, not 'never' (did you mean off?)",
    ),
    ("timeouts: {total:▸ }", "timeouts.total: must be a duration or off, not nothing (did you mean off?)"),
    ("timeouts: {connect: ▸off}", f"timeouts.connect: {DURATION} 'off'"),
    ("timeouts: {idle:▸ }", f"timeouts.idle: {DURATION} nothing"),
    (
        "timeouts: {▸request: 1s}",
        "timeouts.request: unknown key (known here: total, connect, response_header, idle, tunnel)",
    ),
    ("retries: ▸3", "retries: must be a mapping or off, not 3"),
    ("retries: ▸none", "retries: must be a mapping or off, not 'none' (did you mean off?)"),
    ("retries: {attempts: ▸11}", "retries.attempts: must be a whole number from 0 to 10, not 11"),
    ("rate_limit: ▸100", "rate_limit: must be a mapping or off, not 100"),
    ("▸rate_limit: {}", "rate_limit: needs a number of requests, as in requests: 100"),
    ("rate_limit: {▸request: 1}", "rate_limit.request: unknown key (did you mean requests?)"),
    ("rate_limit: {requests: ▸0}", "rate_limit.requests: must be a whole number from 1 to 10000000, not 0"),
    (
        "rate_limit: {requests: ▸100/s}",
        "rate_limit.requests: must be a whole number from 1 to 10000000, not '100/s'",
    ),
    ("rate_limit: {requests: 1, per: ▸0s}", "rate_limit.per: must be more than 0s"),
    ("rate_limit: {requests: 1, per: ▸second}", f"rate_limit.per: {DURATION} 'second'"),
    (
        "rate_limit: {requests: 1, burst: ▸0}",
        "rate_limit.burst: must be a whole number from 1 to 10000000, not 0",
    ),
    (
        "rate_limit: {requests: 1, key: ▸clint}",
        "rate_limit.key: must be client, route or header:NAME, not 'clint' (did you mean client?)",
    ),
    ("rate_limit: {requests: 1, key: ▸ip}", "rate_limit.key: must be client, route or header:NAME, not 'ip'"),
    ("rate_limit: {requests: 1, key: ▸'header:'}", "rate_limit.key: must be the name of a header, not ''"),
    (
        "rate_limit: {requests: 1, key: ▸'header:a b'}",
        "rate_limit.key: must be the name of a header, not 'a b'",
    ),
]

NAME = "must be a name of 1 to 63 letters, digits and _ . -, with a letter or digit first, not"
POOLS = [
    ("▸request_records: 1", "needs pools, as in pools: {greeter: {backends: [127.0.0.1:9001]}}"),
    ("pools: ▸{}", "pools: needs at least one"),
    ("pools:▸", "pools: must be a mapping, not nothing"),
    ("pools: ▸[p]", "pools: must be a mapping, not a list"),
    ("pools: {▸p: {}}", "pools.p: needs backends, as in backends: [127.0.0.1:9001], or discovery"),
    ("pools: {p: ▸[h:1]}", "pools.p: must be a mapping, not a list"),
    ("pools: {p: {▸bakends: [h:1]}}", "pools.p.bakends: unknown key (did you mean backends?)"),
    ("pools: {▸-p: {backends: [h:1]}}", f"pools.-p: {NAME} '-p'"),
    ("pools: {▸a b: {backends: [h:1]}}", f"pools['a b']: {NAME} 'a b'"),
    ("pools: {p: {backends: ▸[]}}", "pools.p.backends: needs at least one"),
    ("pools: {p: {backends: ▸h:1}}", "pools.p.backends: must be a list, not 'h:1' (did you mean [h:1]?)"),
    (
        "▸pools: {a: {backends: [h:1]}, b: {backends: [h:1]}}",
        "pools: there are several (a, b), so routes must say which serves what",
    ),
]

BACKEND_ID = "must be 1 to 128 letters, digits and . _ : / [ ] -, not"
BACKENDS = [
    (["▸9001"], "[0]: must be host:port, not a port alone (did you mean 127.0.0.1:9001?)"),
    (["▸http://h:1"], "[0]: must be host:port alone, without 'http://' (did you mean h:1?)"),
    (["▸h:0"], "[0]: must have a port from 1 to 65535, not 0"),
    (["▸[h:1]"], "[0]: must be a mapping, not a list"),
    (["▸{id: a}"], "[0]: needs an address, as in address: 127.0.0.1:9001"),
    (["{▸adress: h:1}"], "[0].adress: unknown key (did you mean address?)"),
    (
        ["{address: ▸http://h:1}"],
        "[0].address: must be host:port alone, without 'http://' (did you mean h:1?)",
    ),
    (["{address: h:1, weight: ▸heavy}"], "[0].weight: must be a whole number from 0 to 65535, not 'heavy'"),
    (
        ["{address: h:1, weight: ▸'5'}"],
        "[0].weight: must be a whole number from 0 to 65535, not the text '5'",
    ),
    (["{address: h:1, weight: ▸1.5}"], "[0].weight: must be a whole number from 0 to 65535, not 1.5"),
    (["{address: h:1, weight: ▸65536}"], "[0].weight: must be a whole number from 0 to 65535, not 65536"),
    (["{address: h:1, weight: ▸true}"], "[0].weight: must be a whole number from 0 to 65535, not true"),
    (["{address: h:1, tier: ▸10}"], "[0].tier: must be a whole number from 0 to 9, not 10"),
    (["{address: h:1, tier: ▸-1}"], "[0].tier: must be a whole number from 0 to 9, not -1"),
    (["{address: h:1, tier: ▸first}"], "[0].tier: must be a whole number from 0 to 9, not 'first'"),
    (
        ["▸unix:run/a"],
        "[0]: must have an absolute path, as in unix:/run/lb.sock, not 'run/a'",
    ),
    (
        ["▸/run/a"],
        "[0]: must be host:port or unix: and a path, not a path alone (did you mean unix:/run/a?)",
    ),
    (["▸h:0"], "[0]: must have a port from 1 to 65535, not 0"),
    (["unix:/run/a", "▸unix:/run/a"], "[1]: the backend unix:/run/a is here twice: backends[0] has it too"),
    (
        ["▸unix:/run/a b"],
        "[0]: needs an id beside it: the path has characters that can't be in one",
    ),
    (["{address: h:1, id: ▸a b}"], f"[0].id: {BACKEND_ID} 'a b'"),
    (["{address: h:1, id: ▸''}"], f"[0].id: {BACKEND_ID} ''"),
    (["h:1", "▸H:1"], "[1]: the backend h:1 is here twice: backends[0] has it too"),
    (
        ["{address: h:1, id: a}", "{address: h:2, id: ▸a}"],
        "[1].id: the ID 'a' is here twice: backends[0] has it too",
    ),
    (
        ["{address: h:1, id: a}", "{address: ▸h:1, id: b}"],
        "[1].address: h:1 is here twice: backends[0] has it too",
    ),
    (["{address: h:1, id: a}", "▸h:1"], "[1]: h:1 is here twice: backends[0] has it too"),
    (["{address: '[::1]:1', id: a}", "▸'[0::1]:1'"], "[1]: [::1]:1 is here twice: backends[0] has it too"),
]

ONLY_HTTP = "means nothing with type tcp, which only connects; leave"
POOL_PARTS = [
    ("health_check: ▸/healthz", "health_check: must be a mapping or off, not '/healthz'"),
    ("health_check: ▸never", "health_check: must be a mapping or off, not 'never' (did you mean off?)"),
    (
        "health_check: {type: ▸htpp}",
        "health_check.type: must be http or tcp, not 'htpp' (did you mean http?)",
    ),
    ("health_check: {type: ▸[]}", "health_check.type: must be http or tcp, not a list"),
    ("health_check: {path: ▸healthz}", "health_check.path: must start with a /, not 'healthz'"),
    (
        'health_check: {path: ▸"/a\\tb"}',
        "health_check.path: must be a path without spaces, # and what isn't ASCII, not '/a\\tb'",
    ),
    ("health_check: {interval: ▸99ms}", "health_check.interval: must be at least 100ms, not '99ms'"),
    ("health_check: {timeout: ▸0s}", "health_check.timeout: must be more than 0s"),
    ("health_check: {rise: ▸0}", "health_check.rise: must be a whole number from 1 to 1000, not 0"),
    ("health_check: {fall: ▸x}", "health_check.fall: must be a whole number from 1 to 1000, not 'x'"),
    (
        "health_check: {expect: ▸2xx}",
        "health_check.expect: must be statuses such as 200-399 or 200,204,300-399, not '2xx'",
    ),
    ("health_check: {host: ▸a b}", "health_check.host: must have a host name or an IP address, not 'a b'"),
    ("health_check: {type: tcp, ▸path: /x}", f"health_check.path: {ONLY_HTTP} path out"),
    ("health_check: {type: tcp, ▸expect: 200}", f"health_check.expect: {ONLY_HTTP} expect out"),
    ("health_check: {type: tcp, ▸host: a}", f"health_check.host: {ONLY_HTTP} host out"),
    ("timeouts: ▸off", "timeouts: must be a mapping, not off"),
    ("timeouts: {▸conect: 1s}", "timeouts.conect: unknown key (did you mean connect?)"),
    ("keepalive: ▸true", "keepalive: must be a mapping or off, not true"),
    ("keepalive: {connections: ▸0}", "keepalive.connections: must be a whole number from 1 to 65535, not 0"),
    ("balancer: ▸p2d", "balancer: there is no policy 'p2d' (did you mean p2c?)"),
    ("balancer: {policy: ▸p2d}", "balancer.policy: there is no policy 'p2d' (did you mean p2c?)"),
    ("balancer: ▸a b", "balancer: must be the name of a policy or module:Class, not 'a b'"),
    ("▸balancer: {choices: 2}", "balancer: needs a policy, as in policy: p2c"),
    ("balancer: ▸[p2c]", "balancer: must be a mapping, not a list"),
]


PERCENTAGE = "must be a percentage such as 20%, not"
NO_EJECTION = "is off, and so is failure_rate: nothing would be ejected; write outlier_detection: off"
RULES = [
    ("retries: ▸2", "retries: must be a mapping or off, not 2"),
    ("retries: ▸on", "retries: must be a mapping or off, not on"),
    ("retries: ▸[]", "retries: must be a mapping, not a list"),
    ("retries: {▸atempts: 1}", "retries.atempts: unknown key (did you mean attempts?)"),
    ("retries: {attempts: ▸off}", "retries.attempts: must be a whole number from 0 to 10, not off"),
    ("retries: {budget: ▸0.2}", f"retries.budget: {PERCENTAGE} '0.2' (did you mean 20%?)"),
    ("retries: {budget: ▸20}", f"retries.budget: {PERCENTAGE} '20' (did you mean 20%?)"),
    ("retries: {budget: ▸'120%'}", "retries.budget: must be a percentage from 0% to 100%, not '120%'"),
    ("retries: {budget: ▸[20%]}", f"retries.budget: {PERCENTAGE} a list"),
    ("retries: {budget:▸ }", f"retries.budget: {PERCENTAGE} nothing"),
    (
        "retries: {min_per_second: ▸10001}",
        "retries.min_per_second: must be a whole number from 0 to 10000, not 10001",
    ),
    ("retries: {body: ▸65MiB}", "retries.body: must be a size from 0 to 64MiB, not '65MiB'"),
    ("retries: {body: ▸none}", "retries.body: must be a size or off, not 'none' (did you mean off?)"),
    ("retries: {statuses: ▸200}", "retries.statuses: must be statuses from 400 to 599, not 200"),
    ("retries: {statuses: ▸399-500}", "retries.statuses: must be statuses from 400 to 599, not '399-500'"),
    ("retries: {statuses: ▸5xx}", f"retries.statuses: {STATUSES} '5xx'"),
    ("retries: {statuses: [502, ▸302]}", "retries.statuses[1]: must be statuses from 400 to 599, not 302"),
    ("retries: {statuses: [▸5xx, 502]}", f"retries.statuses[0]: {STATUSES} '5xx'"),
    ("retries: {statuses: [▸[502]]}", "retries.statuses[0]: must be statuses such as 502-504, not a list"),
    ("retries: {statuses: ▸[]}", "retries.statuses: needs at least one"),
    ("retries: {statuses: ▸{}}", "retries.statuses: must be statuses such as 502-504, not a mapping"),
    (
        "retries: {statuses: ▸none}",
        "retries.statuses: must be statuses or off, not 'none' (did you mean off?)",
    ),
    ("outlier_detection: ▸5", "outlier_detection: must be a mapping or off, not 5"),
    (
        "outlier_detection: {consecutive_failures: ▸0}",
        "outlier_detection.consecutive_failures: must be a whole number from 1 to 1000, not 0",
    ),
    (
        "outlier_detection: {consecutive_failures: ▸off}",
        f"outlier_detection.consecutive_failures: {NO_EJECTION}",
    ),
    (
        "outlier_detection: {failure_rate: off, consecutive_failures: ▸off}",
        f"outlier_detection.consecutive_failures: {NO_EJECTION}",
    ),
    ("outlier_detection: {failure_rate: ▸0%}", "outlier_detection.failure_rate: must be more than 0%"),
    (
        "outlier_detection: {failure_rate: ▸0.5}",
        f"outlier_detection.failure_rate: {PERCENTAGE} '0.5' (did you mean 50%?)",
    ),
    (
        "outlier_detection: {failure_rate: ▸never}",
        "outlier_detection.failure_rate: must be a percentage or off, not 'never' (did you mean off?)",
    ),
    (
        "outlier_detection: {min_requests: ▸0}",
        "outlier_detection.min_requests: must be a whole number from 1 to 1000000, not 0",
    ),
    (
        "outlier_detection: {interval: ▸99ms}",
        "outlier_detection.interval: must be at least 100ms, not '99ms'",
    ),
    ("outlier_detection: {ejection: ▸0s}", "outlier_detection.ejection: must be more than 0s"),
    (
        "outlier_detection: {max_ejection: ▸9s}",
        "outlier_detection.max_ejection: must be at least as long as ejection, which is 10s",
    ),
    (
        "outlier_detection: {ejection: 1h, max_ejection: ▸59m}",
        "outlier_detection.max_ejection: must be at least as long as ejection, which is 1h",
    ),
    (
        "outlier_detection: {ejection: ▸301s}",
        "outlier_detection.ejection: is longer than max_ejection, which is 5m if it isn't given",
    ),
    ("outlier_detection: {max_ejected: ▸0%}", "outlier_detection.max_ejected: must be more than 0%"),
    ("outlier_detection: {max_ejected: ▸off}", f"outlier_detection.max_ejected: {PERCENTAGE} 'off'"),
    (
        "outlier_detection: {statuses: ▸200-599}",
        "outlier_detection.statuses: must be statuses from 400 to 599, not '200-599'",
    ),
    (
        "outlier_detection: {mode: ▸observ}",
        "outlier_detection.mode: must be enforce or observe, not 'observ' (did you mean observe?)",
    ),
    ("slow_start: ▸30", f"slow_start: {DURATION} '30' (did you mean 30s?)"),
    ("slow_start: ▸0s", "slow_start: must be more than 0s"),
    ("slow_start: ▸on", f"slow_start: {DURATION} 'on'"),
    ("slow_start:▸", "slow_start: must be a duration or off, not nothing (did you mean off?)"),
    ("panic_threshold: ▸0%", "panic_threshold: must be more than 0%"),
    ("panic_threshold: ▸0.5", f"panic_threshold: {PERCENTAGE} '0.5' (did you mean 50%?)"),
    ("panic_threshold: ▸101%", "panic_threshold: must be a percentage from 0% to 100%, not '101%'"),
    ("limits: ▸off", "limits: must be a mapping, not off"),
    (
        "limits: {▸request: 1}",
        "limits.request: unknown key (did you mean requests?)",
    ),
    ("limits: {requests: ▸0}", "limits.requests: must be a whole number from 1 to 1000000, not 0"),
    (
        "limits: {requests_per_backend: ▸none}",
        "limits.requests_per_backend: must be a whole number or off, not 'none' (did you mean off?)",
    ),
    (
        "limits: {connections_per_backend: ▸1000001}",
        "limits.connections_per_backend: must be a whole number from 1 to 1000000, not 1000001",
    ),
    (
        "limits: {connections: ▸1KiB}",
        "limits.connections: must be a whole number from 1 to 1000000, not '1KiB'",
    ),
    ("limits: {queue: ▸-1}", "limits.queue: must be a whole number from 0 to 1000000, not -1"),
    ("limits: {queue_timeout: ▸off}", f"limits.queue_timeout: {DURATION} 'off'"),
    ("timeouts: {total: ▸0s}", "timeouts.total: must be more than 0s"),
    ("timeouts: {total: ▸none}", "timeouts.total: must be a duration or off, not 'none' (did you mean off?)"),
]


@pytest.mark.parametrize(("text", "message"), [*LISTENERS, *TIMEOUTS, *LIMITS, *TOP, *ADMIN])
def test_at_the_top(text, message):
    text = f"{text}\n{POOL}"
    if message.endswith("reload: unknown key"):
        message += (
            " (known here: workers, watch, zone, max_connections, listeners, trusted_proxies, forwarded, "
            "request_id, expose_backend, request_records, access_log, admin, registry, drain, routes, "
            "errors, pools)"
        )
    assert_problems(text, message)


@pytest.mark.parametrize(("line", "message"), ROUTES)
def test_in_a_route(line, message):
    at_the_route = message.startswith(("needs a pool", "must be a mapping, not 'p'"))
    assert_problems(route(line), f"routes[0]{': ' if at_the_route else '.'}{message}")


@pytest.mark.parametrize(("line", "message"), ROUTE_RULES)
def test_in_the_rules_of_a_route(line, message):
    assert_problems(route(f"pool: p\n    {line}"), f"routes[0].{message}")


@pytest.mark.parametrize(("text", "message"), POOLS)
def test_in_the_pools(text, message):
    assert_problems(f"{text}\n", message)


@pytest.mark.parametrize(("lines", "message"), BACKENDS)
def test_in_the_backends(lines, message):
    assert_problems(backends(*lines), f"pools.p.backends{message}")


@pytest.mark.parametrize(("line", "message"), [*POOL_PARTS, *RULES])
def test_in_a_pool(line, message):
    assert_problems(pool(line), f"pools.p.{message}")


def test_an_empty_item_of_a_list():
    words = "must be a mapping, not nothing"
    assert_problems("pools: {p: {backends: [h:1, ▸~]}}\n", f"pools.p.backends[1]: {words}")
    assert_problems("pools:\n  p:\n    backends:\n      -▸\n", f"pools.p.backends[0]: {words}")


def test_a_route_behind_one_that_takes_all():
    assert_problems(
        f"""
        {POOL}
        routes:
          - {{match: {{path_prefix: /, methods: []}}, pool: p}}
          - ▸{{match: {{path_prefix: /v1}}, pool: p}}
        """,
        "routes[1]: is never reached, because routes[0] matches every request",
    )


def test_all_at_once_and_in_order():
    assert_problems(
        """
        listeners:
          - bind: ▸8080
        ▸acces_log: off
        routes:
          - match: {methods: [▸get]}
            pool: ▸greter
        pools:
          greeter:
            balancer: ▸p2d
            backends:
              - {address: 127.0.0.1:9001, weight: ▸heavy}
              - ▸http://h:9002
            timeouts: {connect: ▸2}
        """,
        "listeners[0].bind: must be host:port, not a port alone (did you mean 0.0.0.0:8080?)",
        "acces_log: unknown key (did you mean access_log?)",
        "routes[0].match.methods[0]: 'get' is no method: methods are case-sensitive (did you mean GET?)",
        "routes[0].pool: there is no pool 'greter' (did you mean greeter?)",
        "pools.greeter.balancer: there is no policy 'p2d' (did you mean p2c?)",
        "pools.greeter.backends[0].weight: must be a whole number from 0 to 65535, not 'heavy'",
        "pools.greeter.backends[1]: must be host:port alone, without 'http://' (did you mean h:9002?)",
        f"pools.greeter.timeouts.connect: {DURATION} '2' (did you mean 2s?)",
    )


def test_all_of_a_list_of_statuses_at_once():
    assert_problems(
        pool("retries: {attempts: ▸x, statuses: [▸200, 502, ▸5xx]}"),
        "pools.p.retries.attempts: must be a whole number from 0 to 10, not 'x'",
        "pools.p.retries.statuses[0]: must be statuses from 400 to 599, not 200",
        f"pools.p.retries.statuses[2]: {STATUSES} '5xx'",
    )


def test_a_token_in_the_file_is_never_shown():
    for written in ("s3cr3t", "'s3cr3t'", "[s3cr3t]", "{env: s3cr3t!}", "{value: s3cr3t}", "s3cr3t: x"):
        found = problems(f"admin: {{token: {written}}}\n{POOL}")
        assert found
        assert not any("s3cr3t" in problem for problem in found if "not valid YAML" not in problem)


def test_a_long_or_odd_value_stays_on_one_line():
    for value in ("x" * 100_000, '"a\\nb\\r\\e[31m"'):
        (problem,) = problems(f"request_id: {{header: {value}}}\n{POOL}")
        assert len(problem) < 200
        assert problem.isprintable()
    for value in ('"a\\nb"', '"bind:\\n"'):
        (problem,) = problems(f"listeners: {value}\n{POOL}")
        assert problem.isprintable()
        (problem,) = problems(f"listeners: [{value}]\n{POOL}")
        assert problem.isprintable()
    for key in ("x" * 1000, '"a\\nb\\r\\e[31m"'):
        (problem,) = problems(f"? {key}\n: 1\n{POOL}")
        assert len(problem) < 300
        assert problem.isprintable()


def test_braces_in_a_message_are_braces():
    (problem,) = problems(f"request_id: {{header: '{{words}} {{0}}'}}\n{POOL}")
    assert problem.endswith("not '{words} {0}'")
