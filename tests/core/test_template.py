import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.template import NAMES, Template

VALUES = {name: f"<{name}>".encode() for name in NAMES}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", b""),
        ("plain", b"plain"),
        ("https://{host}{path}{query}", b"https://<host><path><query>"),
        ("{client}", b"<client>"),
        ("{{client}}", b"{client}"),
        ("a{{b}}c{user}d", b"a{b}c<user>d"),
        ("{{{user}}}", b"{<user>}"),
        ("ä{method}", "ä<method>".encode()),
    ],
)
def test_what_is_filled_in(text, expected):
    assert Template(text).render(VALUES) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{hots}", "knows no {hots}"),
        ("{}", "knows no {}"),
        ("{Host}", "knows no {Host}"),
        ("{ host }", "knows no { host }"),
        ("{", "has a { alone"),
        ("a}b", "has a } alone"),
        ("{host", "has a { alone"),
        ("{{host}", "has a } alone"),
    ],
)
def test_what_is_refused(text, words):
    with pytest.raises(ValueError, match="^" + words.replace("{", r"\{").replace("}", r"\}")):
        Template(text)


def test_only_the_names_that_are_given():
    with pytest.raises(ValueError, match=r"knows no \{path\}: there are \{host\}$"):
        Template("{path}", ("host",))


def test_what_is_constant():
    assert Template("a{{b").constant == b"a{b"
    assert Template("a{host}").constant is None
    assert Template("a{host}").names == {"host"}
    assert (Template("a{host}").start, Template("{host}a").start) == (b"a", b"")


pieces = st.lists(
    st.one_of(
        st.text().map(lambda text: (text.replace("{", "{{").replace("}", "}}"), text.encode())),
        st.sampled_from(NAMES).map(lambda name: (f"{{{name}}}", VALUES[name])),
    )
)


@given(pieces)
def test_any_text_with_its_braces_doubled(pieces):
    text, expected = "".join(piece for piece, _ in pieces), b"".join(piece for _, piece in pieces)
    assert Template(text).render(VALUES) == expected


@given(st.text(alphabet="{}abhost", max_size=20))
def test_any_text_is_read_or_refused(text):
    try:
        template = Template(text)
    except ValueError:
        return
    assert isinstance(template.render(VALUES), bytes)
