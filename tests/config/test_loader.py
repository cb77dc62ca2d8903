"""From a file to plain values: what YAML allows and what goes wrong in it, with its place."""

import pytest

from lb.config import ConfigError, load, loader, loads
from tests.config.helpers import assert_problems, config, problems

ONE = "pools: {p: {backends: ['h:1']}}\n"


def test_a_file(tmp_path):
    path = tmp_path / "lb.yaml"
    path.write_text(ONE)
    assert load(path) == load(str(path)) == loads(ONE)


def test_a_byte_order_mark_and_other_line_ends_are_fine(tmp_path):
    path = tmp_path / "lb.yaml"
    path.write_bytes(b"\xef\xbb\xbfpools:\r\n  p:\r\n    backends: ['h:1']\r\n")
    assert load(path) == loads(ONE)


def test_the_name_of_the_file_stands_before_each_problem(tmp_path):
    path = tmp_path / "lb.yaml"
    path.write_text("pols: 1\nx: 2\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).splitlines() == [
        f"{path}:1:1: pols: unknown key (did you mean pools?)",
        f"{path}:2:1: x: unknown key (known here: workers, watch, zone, max_connections, listeners, "
        "trusted_proxies, forwarded, request_id, expose_backend, request_records, access_log, admin, "
        "registry, drain, routes, errors, pools)",
    ]


def refused(path):
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert problem.file == str(path)
    return f"{problem.line}:{problem.column}: {problem.message}"


def test_files_that_are_none(tmp_path):
    assert refused(tmp_path / "none.yaml") == "1:1: there is no such file"
    assert refused(tmp_path) == "1:1: is a directory, not a file"
    assert refused(tmp_path / "lb.yaml" / "x") == "1:1: there is no such file"
    assert refused("a\0b") == "1:1: can't be read: embedded null byte"


def test_a_file_that_can_not_be_read():
    assert refused("/proc/self/mem") == "1:1: can't be read: Input/output error"


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "lb.yaml"
    path.write_bytes("# größer\nä".encode() + b"\xff\n")
    assert refused(path) == "2:2: is not UTF-8 text from here on"


def test_a_file_that_is_too_large(tmp_path):
    path = tmp_path / "lb.yaml"
    path.write_bytes(b"#" * (16 * 2**20 + 1))
    assert refused(path) == "1:1: is larger than 16 MiB"


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "--- # nothing\n...\n"])
def test_empty(text):
    (problem,) = problems(text)
    assert "the file is empty: it needs pools" in problem


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("▸- a\n", "a list"),
        ("▸text\n", "'text'"),
        ("▸42\n", "42"),
        ("▸off\n", "off"),
        ("▸'1'", "the text '1'"),
    ],
)
def test_not_a_mapping(text, what):
    assert_problems(text, f"the file must be a mapping with keys such as pools, not {what}")


SYNTAX = [
    (
        "pools: [a\n▸",
        "expected ',' or ']', but got '<stream end>' (while parsing a flow sequence from line 1)",
    ),
    ("pools:\n▸\t- a\n", "a tab can't stand here; indent with spaces"),
    ("pools: a▸: b\n", "no colon can stand here (look at the indentation; quote text that has ': ')"),
    ("pools: '▸", "found unexpected end of stream (while scanning a quoted scalar from line 1)"),
    ("a: ▸*b\n", "found undefined alias 'b'"),
    (
        "a: ▸@b\n",
        "found character '@' that cannot start any token",
    ),
]


@pytest.mark.parametrize(("text", "message"), SYNTAX)
def test_syntax(text, message):
    assert_problems(text, f"not valid YAML: {message}")


def test_two_documents():
    assert_problems(
        f"{ONE}▸---\n{ONE}", "there is a second document behind this ---, but a configuration is one"
    )


def test_characters_that_yaml_does_not_allow():
    assert_problems("a: b\nc: ▸\x00\n", "the character U+0000 can't stand in YAML")
    assert_problems("a: ▸\ud800\n", "the character U+D800 can't stand in YAML")


def test_an_escape_that_is_no_character():
    (problem,) = problems('a: "\\UFFFFFFFF"\n')
    assert problem.startswith("1:7: not valid YAML: ")


def test_keys_that_are_there_twice():
    assert_problems(
        """
        request_records: 1
        pools:
          p: {backends: ['h:1'], ▸backends: ['h:2']}
          ▸p: {backends: ['h:1']}
        ▸request_records: 2
        """,
        "pools.p.backends: this key is here twice, first on line 3",
        "pools.p: this key is here twice, first on line 3",
        "request_records: this key is here twice, first on line 1",
    )


def test_keys_that_are_no_text():
    assert_problems(f"▸[a]: 1\n▸{{a: b}}: 2\n{ONE}", *["a key must be text, not a list or a mapping"] * 2)


def test_tags_mean_nothing():
    assert_problems(
        f"▸!!python/object:os.system {{}}\n{ONE}".replace("{}\n", "\n"),
        "the tag 'tag:yaml.org,2002:python/object:os.system' means nothing here",
    )
    assert config("request_id: !!map {header: !!str X-Id}").request_id.header == "X-Id"


def test_anchors_and_merges():
    pools = config("""
        pools:
          a: &a
            backends: &backends [h:1]
            timeouts: &slow {connect: 9s, idle: 9s}
          b:
            <<: *a
            timeouts: {<<: *slow, connect: 1s}
          c:
            <<: [{keepalive: off}, *a]
            backends: *backends
        routes: [{pool: a}]
    """).pools
    assert pools["b"].backends == pools["c"].backends == pools["a"].backends
    assert (pools["b"].timeouts.connect, pools["b"].timeouts.idle) == (1, 9)
    assert pools["c"].keepalive is None
    assert pools["a"].keepalive is not None


def test_a_mistake_behind_an_alias_is_shown_where_it_is_written():
    assert_problems(
        """
        listeners:
          - {bind: 'h:1', timeouts: &t {keepalive: ▸never}}
          - {bind: 'h:2', timeouts: *t}
        pools: {p: {backends: ['h:1']}}
        """.replace("▸never", "▸▸never"),
        "listeners[0].timeouts.keepalive: must be a duration such as 250ms, 5s or 1m, not 'never'",
        "listeners[1].timeouts.keepalive: must be a duration such as 250ms, 5s or 1m, not 'never'",
    )


def test_a_mistake_in_what_is_merged():
    assert_problems(
        "pools: {p: {<<: ▸text, backends: ['h:1']}}\n", "pools.p: what << merges must be a mapping"
    )


def test_a_quoted_merge_key_is_a_key():
    (problem,) = problems("pools: {p: {'<<': {}, backends: ['h:1']}}\n")
    assert "unknown key" in problem


def test_an_alias_to_itself():
    assert_problems("pools: &a\n  p: ▸&b [*b]\n", "pools.p[0]: refers to itself by an alias")


def test_a_billion_laughs_is_cut_short():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (problem,) = problems("\n".join(lines))
    assert "holds more than 200000 values (aliases count as what they stand for)" in problem


def test_too_deep():
    (problem,) = problems("[" * 5000)
    assert problem == "1:33: not valid YAML: more than 32 levels deep"


def test_scalars_mean_what_stands_there():
    found = config("""
        routes:
          - match: {hosts: [on, no, yes, off], headers: {x-a: 1, x-b: 010, x-c: 1.10, x-d: true}}
            pool: no
        pools:
          no: {backends: [{id: 1.10, address: h:1}, {id: 0x1F, address: h:2}, {id: 22:22, address: h:3}]}
    """)
    (route,) = found.routes
    assert route.match.hosts == ("on", "no", "yes", "off")
    assert route.match.headers == {"x-a": "1", "x-b": "010", "x-c": "1.10", "x-d": "true"}
    assert route.pool == "no"
    assert [backend.id for backend in found.pools["no"].backends] == ["1.10", "0x1F", "22:22"]


def test_an_address_needs_no_quotes():
    found = config("""
        listeners: [{bind: 127.0.0.1:8080}]
        pools:
          p:
            backends:
              - 127.0.0.1:9001
    """)
    assert str(found.listeners[0].bind) == "127.0.0.1:8080"
    assert found.pools["p"].backends[0].address.port == 9001


@pytest.mark.parametrize(
    "number", ["010", "0x10", "1_000", "1e3", "+5", "5.0", "60:00", "'5'", "٣", "9" * 5000]
)
def test_numbers_are_plain_decimal(number):
    (problem,) = problems(f"request_records: {number}\n{ONE}")
    assert problem.startswith("1:18: request_records: must be a whole number from 0 to 10000000, not ")


def test_a_file_of_too_many_values_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_MOST_NODES", 10)
    with pytest.raises(ConfigError, match=r":1:19: .*more than 200000 values"):
        loads("a: [" + "x," * 12 + "]: nor is this read", "lb.yaml")
