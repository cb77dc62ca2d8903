from base64 import b64encode
from ipaddress import ip_address, ip_network

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.access import BasicAuth, Networks, client_key, credentials

HASH = bcrypt.hashpw(b"secret", b"$2b$04$sixteenBytesOfSaltAre.").decode()


def networks(allow: str = "", deny: str = "") -> Networks:
    return Networks(
        *([each if each == "unix" else ip_network(each) for each in text.split()] for text in (allow, deny))
    )


@pytest.mark.parametrize(
    ("allow", "deny", "let_in", "kept_out"),
    [
        ("10.0.0.0/8", "", "10.1.2.3 10.255.255.255 ::ffff:10.0.0.1", "11.0.0.1 9.255.255.255 ::1 unix x"),
        ("", "10.0.0.0/8", "11.0.0.1 ::1 unix", "10.1.2.3 ::ffff:10.1.2.3 unknown"),
        ("10.0.0.0/8", "10.1.0.0/16", "10.2.0.1 10.0.0.1", "10.1.0.1 192.168.0.1"),
        ("10.1.2.3", "10.0.0.0/8", "10.1.2.3", "10.1.2.4 11.0.0.1"),
        ("10.1.2.0/24", "10.0.0.0/8 10.1.2.3", "10.1.2.4", "10.1.2.3 10.1.3.1"),
        ("0.0.0.0/0", "127.0.0.1", "1.2.3.4 127.0.0.2", "127.0.0.1 ::1"),
        ("2001:db8::/32 unix", "2001:db8:1::/48", "2001:db8::1 unix", "2001:db8:1::1 127.0.0.1 2001:db9::"),
        ("fe80::/10", "", "fe80::1%eth0", "fec0::1"),
        ("", "unix", "127.0.0.1", "unix"),
        ("127.0.0.1", "unix", "127.0.0.1", "unix 127.0.0.2"),
    ],
)
def test_the_smallest_network_decides(allow, deny, let_in, kept_out):
    found = networks(allow, deny)
    for client in let_in.split():
        assert found.admit(client), client
        assert found.admit(client), f"{client}, remembered"
    for client in kept_out.split():
        assert not found.admit(client), client


prefixes = st.builds(
    lambda number, length: ip_network((number, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


@given(st.sets(prefixes, max_size=5), st.sets(prefixes, max_size=5), st.integers(0, 2**32 - 1))
def test_as_a_search_through_all_of_them(allow, deny, number):
    """Against the definition, written plainly."""
    address = ip_address(number)
    holding = [(each.prefixlen, each not in deny) for each in allow | deny if address in each]
    expected = max(holding)[1] if holding else not allow
    assert Networks(allow, deny).admit(str(address)) == expected


def test_verdicts_are_remembered_in_bounds():
    found = networks("10.0.0.0/8")
    for number in range(10_000):
        found.admit(str(ip_address(0x0A000000 + number)))
    assert len(found._known) <= 4096


@pytest.mark.parametrize(
    ("client", "key"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("unix", "unix"),
    ],
)
def test_what_a_client_is_counted_by(client, key):
    assert client_key(client) == key


# --- Authorization ---


def basic(text: str | bytes, scheme: bytes = b"Basic ") -> bytes:
    return scheme + b64encode(text.encode() if isinstance(text, str) else text)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (basic("alice:secret"), ("alice", b"secret")),
        (basic("alice:se:cr:et"), ("alice", b"se:cr:et")),
        (basic("alice:"), ("alice", b"")),
        (basic("älice:pässword"), ("älice", "pässword".encode())),
        (basic("a:b", b"bAsIc   "), ("a", b"b")),
        (basic("alice"), None),
        (basic(":secret"), None),
        (basic(b"\xe4lice:x"), None),
        (basic("al\nice:x"), None),
        (basic("alice:x\0"), None),
        (basic("alice:x\x7f"), None),
        (b"Basic", None),
        (b"Basic ", None),
        (b"Basic !!!!", None),
        (b"Basic YTpi=", None),
        (b"Basic YTpi, Basic YTpi", None),
        (b"Bearer YTpi", None),
        (b"BasicYTpi", None),
        (basic("a:" + "x" * 4000), None),
    ],
)
def test_credentials(field, expected):
    assert credentials(field) == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(field):
    for each in (field, b"Basic " + field, basic(field)):
        found = credentials(each)
        assert found is None or (found[0] and ":" not in found[0])


names = st.text(st.characters(categories=["L", "N", "P"], exclude_characters=":"), min_size=1, max_size=30)


@given(names, st.text(st.characters(exclude_categories=["C"]), max_size=30))
def test_what_a_browser_sends_comes_back(name, password):
    assert credentials(basic(f"{name}:{password}")) == (name, password.encode())


# --- users ---


def test_a_login():
    auth = BasicAuth('the "staff"', {"alice": HASH})
    assert auth.challenge == b'WWW-Authenticate: Basic realm="the \\"staff\\"", charset="UTF-8"'
    assert auth.verify("alice", b"secret")
    assert not auth.verify("alice", b"Secret")
    assert not auth.verify("bob", b"secret"), "another one's password is not his"


def test_a_good_one_is_remembered_for_a_while():
    auth = BasicAuth("", {"alice": HASH})
    digest = auth.digest("alice", b"secret")
    assert auth.known(digest, 0.0) == ""
    auth.remember(digest, "alice", 10.0)
    assert auth.known(digest, 309.9) == "alice"
    assert auth.known(auth.digest("alice", b"secreT"), 10.0) == ""
    assert auth.known(digest, 310.0) == ""
    assert not auth._logins


def test_so_many_are_remembered_and_no_more():
    auth = BasicAuth("", {"alice": HASH})
    digests = [auth.digest("alice", b"%d" % number) for number in range(BasicAuth.REMEMBERED + 1)]
    for digest in digests:
        auth.remember(digest, "alice", 0.0)
    assert auth.known(digests[0], 1.0) == ""
    assert auth.known(digests[1], 1.0) == auth.known(digests[-1], 1.0) == "alice"


def test_nobody_else_knows_what_it_is_remembered_by():
    one, other = BasicAuth("", {"alice": HASH}), BasicAuth("", {"alice": HASH})
    assert one.digest("alice", b"secret") != other.digest("alice", b"secret")
    assert b"secret" not in one.digest("alice", b"secret")


def test_a_user_that_there_is_not_costs_a_hash_too(monkeypatch):
    """Each name always the same one, drawn among those that there are: time tells nothing."""
    auth = BasicAuth("", {"alice": HASH, "bob": HASH, "carol": HASH})
    asked: list[str] = []

    def watched(name):
        return lambda password: asked.append(name) or True

    auth._verify = {name: watched(name) for name in auth._verify}
    assert not any(auth.verify(name, b"x") for name in ("dave", "dave", "dave"))
    assert len(asked) == 3
    assert len(set(asked)) == 1
    assert not any(auth.verify(f"user-{number}", b"x") for number in range(100))
    assert set(asked) == {"alice", "bob", "carol"}


def test_there_must_be_users():
    with pytest.raises(ValueError, match="there are no users"):
        BasicAuth("", {})
