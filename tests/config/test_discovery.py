"""Sources in the configuration, and files of backends: every mistake at its place."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lb.config import Backend, ConfigError, backends_file, load, loads
from lb.config.backends_file import BackendsFile, BackendsReader
from lb.config.loader import validated
from lb.config.values import Address
from tests.config.helpers import problems
from tests.config.test_schema import accepts

POOL = "pools: {p: {discovery: [SOURCE]}}\n"
RIGHT = [
    "file: backends.yaml",
    "file: {path: /a/b.json, on_empty: accept, max_stale: 5m}",
    "dns: {name: greeter.test, port: 80}",
    "dns: {name: greeter., type: A, port: 80, resolver: [127.0.0.1, '::1', '[::1]:5353', '127.0.0.1:53']}",
    "dns: {name: _http._tcp.greeter.test, type: SRV, max_stale: off}",
    "dns: {name: a, type: address, port: 1, timeout: 1s, min_ttl: 1s, max_ttl: 1s}",
    "consul: {service: greeter}",
    "consul: {url: 'https://h:8501/', service: a.b-c_d, datacenter: dc1, tags: [a, 'b=c'], ca: ca.pem}",
    "consul: {service: a, passing: false, token: {env: TOKEN}, on_empty: keep}",
]
NEEDS_ONE = "pools.p.discovery[0]: needs exactly one of file, dns, registry, kubernetes, consul"
WRONG = [
    ("▸{}", NEEDS_ONE),
    ("▸{file: a, dns: {name: a, port: 1}}", NEEDS_ONE),
    ("{▸fiel: a}", "pools.p.discovery[0].fiel: unknown key (did you mean file?)"),
    ("{▸file: {}}", "pools.p.discovery[0].file: needs a path, as in path: backends.yaml"),
    ("{file: ▸a/}", "pools.p.discovery[0].file: must be the path of a file, not"),
    ("{file: {path: ▸~}}", "pools.p.discovery[0].file.path: must be a path, not nothing"),
    ("{file: {path: a, on_empty: ▸drop}}", "pools.p.discovery[0].file.on_empty: must be keep or accept"),
    ("{file: {path: a, max_stale: ▸0s}}", "pools.p.discovery[0].file.max_stale: must be more than 0"),
    ("{dns: {port: 80}}", "pools.p.discovery[0].dns: needs a name, as in name: greeter.internal"),
    ("{dns: {name: a}}", "pools.p.discovery[0].dns: needs a port, as in port: 8080, or type: SRV"),
    ("{dns: {name: a, type: SRV, ▸port: 80}}", "pools.p.discovery[0].dns.port: means nothing with type SRV"),
    ("{dns: {name: a, type: ▸srv, port: 80}}", "pools.p.discovery[0].dns.type: must be address or A or AAAA"),
    ("{dns: {name: ▸10.0.0.1, port: 80}}", "pools.p.discovery[0].dns.name: must be a name, not an address"),
    ("{dns: {name: ▸'a b', port: 80}}", "pools.p.discovery[0].dns.name: must have a host name"),
    ("{dns: {name: a, port: ▸0}}", "pools.p.discovery[0].dns.port: must be a whole number from 1"),
    (
        "{dns: {name: a, port: 1, resolver: [▸ns.test]}}",
        "pools.p.discovery[0].dns.resolver[0]: must be the IP address of a name server",
    ),
    ("{dns: {name: a, port: 1, min_ttl: ▸10m}}", "pools.p.discovery[0].dns.min_ttl: min_ttl can't be more"),
    ("{dns: {name: a, port: 1, max_ttl: ▸500ms}}", "pools.p.discovery[0].dns.max_ttl: min_ttl can't be more"),
    ("{▸consul: {}}", "pools.p.discovery[0].consul: needs a service, as in service: greeter"),
    ("{consul: {service: ▸a/b}}", "pools.p.discovery[0].consul.service: must be the name of a service"),
    ("{consul: {service: a, url: ▸consul.test}}", "pools.p.discovery[0].consul.url: must be a URL such as"),
    (
        "{consul: {service: a, url: ▸'http://u:p@h'}}",
        "pools.p.discovery[0].consul.url: must be a URL without",
    ),
    ("{consul: {service: a, url: ▸'http://h:x'}}", "pools.p.discovery[0].consul.url: must be a URL, not"),
    ("{consul: {service: a, token: ▸secret}}", "pools.p.discovery[0].consul.token: must not stand in this"),
    ("{consul: {service: a, tags: [▸'a b']}}", "pools.p.discovery[0].consul.tags[0]: must be text without"),
]


@pytest.mark.parametrize("source", RIGHT)
def test_good_sources_which_the_schema_knows(source: str) -> None:
    text = POOL.replace("SOURCE", f"{{{source}}}")
    assert accepts(text)
    found = loads(text)
    if "off" in source:
        return  # what is off is left out of what /api/config shows, as everywhere
    shown = found.model_dump(mode="json", exclude_none=True)["pools"]["p"]["discovery"]
    again = loads(json.dumps({"pools": {"p": {"discovery": shown}}}))
    for one, other in zip(again.pools["p"].discovery, found.pools["p"].discovery, strict=True):
        assert (one.kind, one.section) == (other.kind, other.section), "/api/config shows what is meant"


@pytest.mark.parametrize(("source", "words"), WRONG)
def test_wrong_sources(source: str, words: str) -> None:
    marked = POOL.replace("SOURCE", source)
    text = marked.replace("▸", "")
    found = problems(text)
    assert [each for each in found if each.partition(": ")[2].startswith(words)], found
    if "▸" in marked:
        assert f"1:{marked.index('▸') + 1}" in [each.partition(": ")[0] for each in found], found


@pytest.mark.parametrize("source", [source for source, words in WRONG if "_ttl" not in source])
def test_the_schema_refuses_them_too(source: str) -> None:
    text = POOL.replace("SOURCE", source.replace("▸", ""))
    loosely = ("a/b", "u:p@h", "h:x", "10.0.0.1", "'a b', port", "ns.test", "consul.test")
    assert not accepts(text) or any(each in source for each in loosely)


def test_a_pool_needs_backends_or_sources() -> None:
    assert loads(POOL.replace("SOURCE", "{file: a}")).pools["p"].backends == ()
    assert not accepts("pools: {p: {}}")
    assert problems("pools: {p: {discovery: []}}\n") == ["1:24: pools.p.discovery: needs at least one"]


def test_a_file_is_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "lb.yaml").write_text(POOL.replace("SOURCE", "{file: a.yaml}, {file: /b.yaml}"))
    sources = load(tmp_path / "lb.yaml").pools["p"].discovery
    assert [each.section.about for each in sources] == [str(tmp_path / "a.yaml"), "/b.yaml"]
    consul = "{consul: {service: a, ca: ca.pem, token: {file: token}}}"
    (tmp_path / "lb.yaml").write_text(POOL.replace("SOURCE", consul))
    found = load(tmp_path / "lb.yaml").pools["p"].discovery[0].consul
    assert found is not None
    assert found.token is not None
    assert (found.ca, found.token.file) == (str(tmp_path / "ca.pem"), str(tmp_path / "token"))


# --- the file ---


def same(backend: Backend) -> Backend:
    return backend


def read(directory: Path, text: str) -> list[tuple[str, Address, int, int]]:
    (directory / "backends").write_text(text)
    return [
        (each.id, each.address, each.weight, each.tier)
        for each in BackendsReader(same).read(str(directory / "backends"))
    ]


@pytest.mark.parametrize(
    "text",
    [
        "- h:1\n- {id: b, address: 'h:2', weight: 3, tier: 1}\n",
        "backends:\n- h:1\n- {id: b, address: 'h:2', weight: 3, tier: 1}\n",
        '["h:1", {"id": "b", "address": "h:2", "weight": 3, "tier": 1}]',
        '{"backends": ["h:1",\n\t{"id": "b", "address": "h:2", "weight": 3, "tier": 1}]}\n',
        '[\n\t"h:1",\n\t{id: b, address: "h:2", weight: 3, tier: 1},\n]',  # YAML that looks like JSON
    ],
)
def test_the_ways_to_write_it(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == [("h:1", Address("h", 1), 1, 0), ("b", Address("h", 2), 3, 1)]


def test_an_empty_list_is_none_and_an_empty_file_a_mistake(tmp_path: Path) -> None:
    assert read(tmp_path, "[]") == read(tmp_path, "backends: []\n") == []
    with pytest.raises(ConfigError, match="the file is empty: it needs backends"):
        read(tmp_path, "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- h:1\n- {adress: h:2}\n", ":2:4: backends[1].adress: unknown key (did you mean address?)"),
        ('["h:1", {"address": "h:2", "weight": "3"}]', ":1:38: backends[1].weight: must be a whole number"),
        ('["h:1", "h:1"]', ":1:9: backends[1]: the backend h:1 is here twice: backends[0] has it too"),
        (
            '["h:1", {"id": "a", "id": "b", "address": "h:2"}]',
            ":1:21: backends[1].id: this key is here twice",
        ),
        ('["h:1", {"address": "h:', ":1:24: not valid YAML"),
        ('["h:1",\n\t"h:2"\n\t"h:3"]', ":3:2: not valid YAML"),
        ("- h:1\n  - h:2: x\n", ":2:8: not valid YAML: no colon can stand here"),
        ("backends: {a: b}\n", ":1:11: backends: must be a list, not a mapping"),
        ("servers: [h:1]\n", ":1:1: servers: unknown key"),
        ("3\n", ":1:1: the file must be a mapping with keys such as backends, not 3"),
        ("[" * 100_000, "more than 32 levels deep"),
    ],
)
def test_mistakes_with_their_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)


def test_what_has_not_changed_is_the_very_same(tmp_path: Path) -> None:
    reader, path = BackendsReader(same), tmp_path / "backends"
    path.write_text('["h:1", {"address": "h:2", "weight": 2}, "h:3"]')
    before = reader.read(str(path))
    path.write_text('[{"address": "h:2", "weight": 2}, "h:1", {"address": "h:3"}, "h:4"]')
    after = reader.read(str(path))
    assert after[0] is before[1]
    assert after[1] is before[0]
    assert [each.id for each in after] == ["h:2", "h:1", "h:3", "h:4"]
    path.write_text('["h:1", "h:2", "h:1"]')
    with pytest.raises(ConfigError, match=r":1:16: .*twice"):
        reader.read(str(path))


def as_blocks(items: list[dict[str, object]]) -> str:
    return str(yaml.safe_dump({"backends": items}))


def as_braces(items: list[dict[str, object]]) -> str:
    return str(yaml.safe_dump(items, default_flow_style=None))


@pytest.mark.parametrize("write", [json.dumps, as_blocks, as_braces])
def test_thousands_are_read_quickly(
    tmp_path: Path, write: Callable[[object], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the parser that knows places, which would take seconds."""
    monkeypatch.setattr(backends_file, "parse", None)
    monkeypatch.setattr(backends_file, "validated", None)
    items = [{"id": f"b{number}", "address": f"10.0.0.1:{number}"} for number in range(1, 20_001)]
    assert len(read(tmp_path, write(items))) == 20_000


# Pieces of lists in YAML, good and bad, which the quick way may take for something else than they are.
HEADS = [
    "",
    "backends:\n",
    "# a list\n\nbackends:  # of them\n",
    "---\n",
    "backends: \n#-\n",
    "backends: []\n",
]
ITEMS = [
    *("- h:N", "- 'h:N'", '- "h:N"', "- {id: N, address: h:N}", "- id: N\n  address: h:N\n  weight: 2"),
    *(
        "-\n  address: h:N",
        "-   id: 'N'\n    address: h:N",
        "- address: 'h:N' # N",
        "- {address: h:N, tier: 1}",
    ),
    *("- h:N\n\n# one more", "- address: h:N\n  zone: off", "- {address: h:N,zone: 'off'}", "- h:N\n  "),
    *(
        "- [h:N]",
        "- &a h:N",
        "- *a",
        "- !!str h:N",
        "- 'h:N",
        "- h:N'",
        '- "h:N\n',
        "- {address: h:N",
        "- h:N}",
    ),
    *(
        "- id: N\n   address: h:N",
        "- h:N\n  h:N",
        "- h:N\r- h:1N",
        "- h:N\u2028- h:1N",
        "- h:N\n...",
        "- h:N\n---",
    ),
    *("- |\n  h:N", "- >-\n  h:N", "- ? address\n  : h:N", "- id: N\n  id: N\n  address: h:N", "- h:7", "-"),
    *(
        "- address: h:N\n  wieght: 1",
        "- {address: h:N, weight: x}",
        "- null",
        "- - h:N",
        "-\th:N",
        "- h:N\nx: y",
    ),
    *("- <<: {address: h:N}\n  id: N", "- {address: unix:/N, id: N}", "- [::1]:N", "- '[::1]:N'", "- ::1:N"),
]


def outcome(read: Callable[[], object]) -> object:
    try:
        return read()
    except ConfigError as error:
        return [str(problem) for problem in error.problems]


@pytest.mark.parametrize("seed", range(300))
def test_the_quick_way_finds_what_the_parser_finds(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path, reader = tmp_path / "backends", BackendsReader(same)
    few = chance.sample(ITEMS, 6) if chance.random() < 0.5 else ITEMS[:13]
    for _ in range(8):
        items = [
            chance.choice(few).replace("N", str(number))
            for number in chance.sample(range(1, 20), chance.randint(0, 6))
        ]
        indentation = " " * chance.choice((0, 0, 2, 3))
        lines = "\n".join(items).replace("\n", f"\n{indentation}")
        text = f"{chance.choice(HEADS)}{indentation}{lines}{chance.choice(('', chr(10)))}"
        path.write_text(text)
        slowly = outcome(
            lambda text=text: (
                validated(  # type: ignore[misc]
                    BackendsFile, text, str(path), None, "backends", "backends"
                ).backends
            )
        )
        for _ in range(2):
            quickly = outcome(lambda: tuple(reader.read(str(path))))
            assert quickly == slowly, text


def test_a_wrong_file_that_has_not_changed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, path = BackendsReader(same), tmp_path / "backends"
    path.write_text("- h:0\n- {address: h:1, x: 1}\n")
    wrong = outcome(lambda: reader.read(str(path)))
    assert len(wrong) == 2  # type: ignore[arg-type]
    monkeypatch.setattr(backends_file, "validated", None)
    assert outcome(lambda: reader.read(str(path))) == wrong
    path.write_text("- h:1\n")
    assert [each.id for each in reader.read(str(path))] == ["h:1"]
