"""Access rules, answers and changes of heads: what is read, and each mistake at its place."""

import builtins
from ipaddress import ip_network

import bcrypt
import pytest

from lb.config import ConfigError, loads
from lb.config.answers import pages_by_status
from tests.config.helpers import assert_problems, config, problems

POOL = "pools: {p: {backends: ['h:1']}}\n"
HASH = bcrypt.hashpw(b"secret", b"$2b$04$sixteenBytesOfSaltAre.").decode()
ANSWERS = "which asks no backend"
FRAMING = "which says where a message ends or what becomes of the connection"


def route(line: str) -> str:
    return f"{POOL}routes:\n  - {line}\n"


NETWORK = "must be a network such as 10.0.0.0/8 or an IP address, not"
VALUE = "must be visible ASCII, as it stands in the header, not"
MISTAKES = [
    # allow, deny
    ("{pool: p, allow: [▸x]}", f"allow[0]: {NETWORK} 'x'"),
    ("{pool: p, allow: ▸10.0.0.0/8}", "allow: must be a list, not '10.0.0.0/8' (did you mean [10.0.0.0/8]?)"),
    (
        "{pool: p, deny: [▸10.0.0.1/8]}",
        "deny[0]: must be a network, but bits behind its mask are set (did you mean 10.0.0.0/8?)",
    ),
    (
        "{pool: p, allow: [unix, 10.1.0.0/16], deny: [▸10.1.0.0/16]}",
        "deny[0]: 10.1.0.0/16 is allowed too, by allow[1]",
    ),
    ("{pool: p, allow: [▸5]}", f"allow[0]: {NETWORK} '5'"),
    # limits
    ("{pool: p, limits: {body: ▸1 MB}}", None),
    ("{pool: p, limits: {▸bdoy: 1MiB}}", "limits.bdoy: unknown key (did you mean body?)"),
    # basic_auth
    ("{pool: p, ▸basic_auth: {}}", "basic_auth: needs one of the two: file: PATH or users: {NAME: HASH}"),
    ("{pool: p, basic_auth: {users: ▸{}}}", "basic_auth.users: needs at least one"),
    (
        "{pool: p, basic_auth: {file: ▸nowhere.htpasswd}}",
        "basic_auth.file: can't read nowhere.htpasswd: no such file or directory",
    ),
    ("{pool: p, basic_auth: {file: ▸/}}", "basic_auth.file: can't read /: is a directory"),
    (
        "{pool: p, basic_auth: {users: {a: ▸secret}}}",
        "basic_auth.users.a: is no hash that is known here (plain text is refused); "
        "make one with htpasswd -B",
    ),
    (
        "{pool: p, basic_auth: {users: {a: ▸'{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ='}}}",
        "basic_auth.users.a: is SHA-1, which is too easily guessed; use bcrypt; make one with htpasswd -B",
    ),
    (
        "{pool: p, basic_auth: {users: {▸'a:b': '" + HASH + "'}}}",
        "basic_auth.users['a:b']: must be a user's name, without a colon, not 'a:b'",
    ),
    (
        "{pool: p, basic_auth: {realm: ▸ä, users: {a: '" + HASH + "'}}}",
        "basic_auth.realm: must be printable ASCII, not 'ä'",
    ),
    (
        "{pool: p, basic_auth: {users: {a: ▸[x]}}}",
        "basic_auth.users.a: must be the hash of a password, as text",
    ),
    # respond, redirect
    ("{pool: p, ▸respond: {}}", "respond: stands beside pool, but a route has only one of the two"),
    ("{respond: {}, ▸redirect: /x}", "redirect: stands beside respond, but a route has only one of the two"),
    ("{respond: {status: ▸199}}", "respond.status: must be a whole number from 200 to 599, not 199"),
    (
        "{respond: {status: 204, ▸body: x}}",
        "respond.body: can't be here, since an answer with the status 204 has no body",
    ),
    ("{respond: {body: x, ▸file: lb.yaml}}", None),
    (
        "{respond: {content_type: ▸html}}",
        "respond.content_type: must be a media type such as text/html; charset=utf-8, not 'html'",
    ),
    (
        "{respond: {}, ▸strip_prefix: /a, match: {path_prefix: /a}}",
        f"strip_prefix: does nothing beside respond, {ANSWERS}",
    ),
    ("{redirect: /x, ▸retries: off}", f"retries: does nothing beside redirect, {ANSWERS}"),
    ("{redirect: /x, ▸timeouts: {total: 1s}}", f"timeouts: does nothing beside redirect, {ANSWERS}"),
    (
        "{redirect: /x, headers: {▸request: {remove: [a]}}}",
        f"headers.request: does nothing beside redirect, {ANSWERS}",
    ),
    ("{▸redirect: {}}", "redirect: needs where to, as in to: https://{host}{path}{query}"),
    ("{redirect: {to: /x, status: ▸300}}", "redirect.status: must be 301, 302, 303, 307 or 308, not 300"),
    # headers
    (
        "{pool: p, headers: {request: {set: {▸Content-Length: 1}}}}",
        f"headers.request.set.Content-Length: can't change Content-Length, {FRAMING}",
    ),
    (
        "{pool: p, headers: {response: {add: {▸transfer_encoding: x}}}}",
        f"headers.response.add.transfer_encoding: can't change transfer_encoding, {FRAMING}",
    ),
    (
        "{pool: p, headers: {response: {remove: [a, ▸Connection]}}}",
        f"headers.response.remove[1]: can't change Connection, {FRAMING}",
    ),
    (
        "{pool: p, headers: {request: {set: {▸X-Forwarded-Port: 1}}}}",
        "headers.request.set.X-Forwarded-Port: can't change X-Forwarded-Port, "
        "which the balancer writes itself",
    ),
    (
        "{pool: p, headers: {request: {add: {▸x-request-id: 1}}}}",
        "headers.request.add.x-request-id: can't change x-request-id, which the balancer writes itself",
    ),
    (
        "{pool: p, headers: {response: {remove: [▸X-Request-ID]}}}",
        "headers.response.remove[0]: can't change X-Request-ID, which the balancer writes itself",
    ),
    (
        "{pool: p, headers: {request: {add: {▸Host: a}}}}",
        "headers.request.add.Host: can't change Host, of which there has to be just one: set it",
    ),
    ("{pool: p, headers: {request: {set: {host: ▸'a b'}}}}", None),
    (
        "{pool: p, headers: {request: {set: {host: ▸'{client}'}}}}",
        "headers.request.set.host: must have a host name or an IP address, not '{client}'",
    ),
    (
        "{pool: p, headers: {request: {set: {host: ▸'a:99999'}}}}",
        "headers.request.set.host: must end in a port from 1 to 65535, not '99999'",
    ),
    (
        "{pool: p, headers: {request: {set: {▸a b: 1}}}}",
        "headers.request.set['a b']: must be the name of a header, not 'a b'",
    ),
    (
        r'{pool: p, headers: {request: {set: {a: ▸"b\r\nc: d"}}}}',
        rf"headers.request.set.a: {VALUE} 'b\r\nc: d'",
    ),
    ("{pool: p, headers: {request: {add: {a: ▸[b, ä]}}}}", f"headers.request.add.a: {VALUE} 'ä'"),
    (
        "{pool: p, headers: {response: {set: {a: ▸'{path}'}}}}",
        "headers.response.set.a: knows no {path}: there are "
        "{client}, {host}, {method}, {request_id}, {scheme}, {user}",
    ),
    (
        "{pool: p, headers: {request: {set: {a: ▸'{'}}}}",
        "headers.request.set.a: has a { alone: a brace is written {{",
    ),
    (
        "{pool: p, headers: {request: {set: {a: 1, ▸A: 2}}}}",
        "headers.request.set.A: the header 'A' is here twice, since case doesn't matter",
    ),
    # errors
    (
        "{pool: p, errors: {▸502: {}}}",
        "errors.502: needs a body, as in body: TEXT, or a file, as in file: PATH",
    ),
    ("{pool: p, errors: {▸200: {body: x}}}", "errors.200: must be statuses from 400 to 599, not '200'"),
    (
        "{pool: p, errors: {500-503: {body: x}, ▸502: {body: x}}}",
        "errors.502: has 502, which '500-503' has already",
    ),
    (
        "{pool: p, errors: {502: {file: ▸nowhere}}}",
        "errors.502.file: can't read nowhere: no such file or directory",
    ),
    # match
    ("{pool: p, match: {scheme: ▸ftp}}", "match.scheme: must be http or https, not 'ftp'"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_a_mistake(line, message):
    if message is None:
        assert problems(route(line.replace("▸", "")))
    else:
        at_the_route = message.startswith("needs a pool")
        assert_problems(route(line), f"routes[0]{': ' if at_the_route else '.'}{message}")


LOCATION = "must be a URL or a path, as in https://{host}{path}{query} or /new{path}, not"


@pytest.mark.parametrize(
    "to",
    [
        *(
            "https://a.example",
            "http://{host}:8080{path}",
            "{scheme}://www.{host}{path}{query}",
            "/x",
            "{path}",
        ),
        *(
            "https://a.example/x?from={path}",
            "https://[::1]/",
            "https://a.example{query}",
            "/{{x}}",
            "https://a#b",
        ),
    ],
)
def test_where_a_redirect_may_lead(to):
    assert config(f"routes: [{{redirect: '{to}'}}]").routes[0].redirect.to == to


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("a.example", LOCATION),
        ("ftp://a.example", LOCATION),
        ("javascript:alert(1)", LOCATION),
        ("//a.example", None),
        ("{host}/x", LOCATION),
        ("{query}", LOCATION),
        ("https://{path}", LOCATION),
        ("https://", LOCATION),
        ("https://a.example{client}", LOCATION),
        ("https://user@a.example", LOCATION),
        ("https://a b", "must be visible ASCII, as it stands in the header, not"),
        ("https://a.example{pth}", "knows no {pth}: there are"),
        ("https://a.example/}", "has a } alone"),
    ],
)
def test_where_a_redirect_may_not_lead(to, words):
    found = problems(f"{POOL}routes: [{{redirect: '{to}'}}]\n")
    if words is None:  # it leads to a path at the same host: see tests/core/test_answers.py
        assert not found
    else:
        assert len(found) == 1
        assert words in found[0]


def test_the_request_s_id_is_ours_by_any_name():
    text = (
        f"{POOL}request_id: {{header: X-Trace}}\n"
        "routes: [{pool: p, headers: {request: {set: {x-request-id: 1, ▸X-TRACE: 1}}}}]\n"
    )
    assert_problems(
        text,
        "routes[0].headers.request.set.X-TRACE: can't change X-TRACE, which the balancer writes itself",
    )


def test_all_problems_at_once():
    text = f"""
    {POOL.strip()}
    routes:
      - allow: [▸a]
        deny: [▸b]
        basic_auth: {{users: {{x: ▸y}}}}
        headers: {{▸request: {{set: {{▸te: 1}}}}, response: {{add: {{a: ▸ä}}}}}}
        errors: {{▸700: {{body: x}}}}
        redirect: ▸nowhere
    errors: {{▸502: {{}}}}
    """
    found = problems(text.replace("▸", ""))
    assert len(found) == text.count("▸") == 9


def test_what_is_off_or_left_out_is_no_rule():
    route = config("routes: [{pool: p, basic_auth: off, limits: {body: off}, allow: [], errors: {}}]").routes[
        0
    ]
    assert (route.basic_auth, route.limits.body, route.allow, dict(route.errors)) == (None, None, (), {})


def test_what_is_read():
    found = config(
        f"""
        routes:
          - allow: [10.0.0.0/8, unix, "::1"]
            basic_auth: {{users: {{alice: "{HASH}"}}}}
            headers: {{request: {{set: {{Host: a.example}}, add: {{x-a: 1, x-b: [2, three]}}}}}}
            errors: {{502-504: {{body: sorry}}, "429": {{body: slow down}}}}
            pool: p
        """
    ).routes[0]
    assert found.allow == (ip_network("10.0.0.0/8"), "unix", ip_network("::1"))
    assert found.basic_auth.hashes == {"alice": HASH}
    assert found.headers.request.host == "a.example"
    assert found.headers.request.add == {"x-a": ("1",), "x-b": ("2", "three")}
    assert sorted(pages_by_status(found.errors)) == [429, 502, 503, 504]


def test_files_are_read_with_the_configuration(tmp_path):
    users, page = tmp_path / "users", tmp_path / "sorry.HTML"
    users.write_text(f"# us\nalice:{HASH}\n")
    page.write_bytes(b"<p>\xff")
    text = (
        f"{POOL}routes: [{{pool: p, basic_auth: {{file: '{users}'}}, errors: {{502: {{file: '{page}'}}}}}}]\n"
    )
    before = loads(text)
    route = before.routes[0]
    assert route.basic_auth.hashes == {"alice": HASH}
    assert (route.errors["502"].content, route.errors["502"].media_type) == (
        b"<p>\xff",
        "text/html; charset=utf-8",
    )
    assert loads(text) == before
    page.write_bytes(b"<p>")
    assert loads(text) != before, "what has changed in a file is another configuration"


def test_mistakes_in_a_file_of_users_are_told_with_their_lines(tmp_path):
    users = tmp_path / "users"
    users.write_text(f"alice:{HASH}\nbob:$apr1$x$y\ncarol\n")
    found = problems(f"{POOL}routes: [{{pool: p, basic_auth: {{file: {users}}}}}]\n")
    assert [each.partition("file: ")[2] for each in found] == [
        f"{users}:2: the password of 'bob' is MD5, which is too easily guessed; use bcrypt; "
        "make one with htpasswd -B",
        f"{users}:3: must be NAME:HASH",
    ]
    assert {each.partition(": ")[0] for each in found} == {"2:39"}
    users.write_text("# nobody\n")
    assert problems(f"{POOL}routes: [{{pool: p, basic_auth: {{file: {users}}}}}]\n") == [
        f"2:39: routes[0].basic_auth.file: {users} holds no users"
    ]
    users.write_bytes(b"\xff:x")
    assert "is not UTF-8" in problems(f"{POOL}routes: [{{pool: p, basic_auth: {{file: {users}}}}}]\n")[0]


def test_a_file_that_is_too_large(tmp_path):
    page = tmp_path / "page"
    page.write_bytes(bytes(2**16))
    assert not problems(f"{POOL}errors: {{502: {{file: {page}}}}}\n")
    page.write_bytes(bytes(2**16 + 1))
    (found,) = problems(f"{POOL}errors: {{502: {{file: {page}}}}}\n")
    assert found.endswith(f"can't be {page}, which is larger than 64KiB")


def test_no_hash_is_shown():
    text = f"{POOL}routes: [{{pool: p, basic_auth: {{users: {{alice: '{HASH}'}}}}}}]\n"
    shown = loads(text).model_dump_json()
    assert "alice" in shown
    assert HASH not in shown
    with pytest.raises(ConfigError) as error:
        loads(text.replace(HASH, HASH[:-1]))
    assert HASH[:-1] not in str(error.value)


def test_without_the_package_it_is_said_at_its_place(monkeypatch):
    real = builtins.__import__

    def without_bcrypt(name, *rest):
        if name == "bcrypt":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_bcrypt)
    assert_problems(
        f"{POOL}routes:\n  - {{pool: p, basic_auth: {{users: {{alice: ▸'{HASH}'}}}}}}\n",
        "routes[0].basic_auth.users.alice: needs the package bcrypt: pip install 'lb[auth]'",
    )
    assert not problems(POOL), "nobody else needs it"
