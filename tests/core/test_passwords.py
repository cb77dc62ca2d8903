"""Hashes: made by others (bcrypt's library, hashlib as passlib uses it), read by us."""

import hashlib
from base64 import b64encode

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.passwords import is_user_name, read_htpasswd, verifier

SALT, PASSWORD = b"sixteen bytes ..", b"correct horse"


def ab64(data: bytes) -> str:
    """As passlib writes it."""
    return b64encode(data).decode().rstrip("=").replace("+", ".")


BCRYPT = bcrypt.hashpw(PASSWORD, b"$2b$04$sixteenBytesOfSaltAre.").decode()
SCRYPT = (
    f"$scrypt$ln=4,r=8,p=1${ab64(SALT)}${ab64(hashlib.scrypt(PASSWORD, salt=SALT, n=16, r=8, p=1, dklen=32))}"
)
PBKDF2 = f"$pbkdf2-sha256$1000${ab64(SALT)}${ab64(hashlib.pbkdf2_hmac('sha256', PASSWORD, SALT, 1000))}"
PBKDF2_512 = f"$pbkdf2-sha512$1000${ab64(SALT)}${ab64(hashlib.pbkdf2_hmac('sha512', PASSWORD, SALT, 1000))}"
KNOWN = [
    # passlib's own examples, and one of jBCrypt.
    ("$pbkdf2-sha256$1212$4vjV83LKPjQzk31VI4E0Vw$hsYF68OiOUPdDZ1Fg.fJPeq1h/gXXY7acBp9/6c.tmQ", b"password"),
    ("$pbkdf2-sha256$6400$.6UI/S.nXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44", b"password"),
    ("$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E", b"password"),
    ("$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i", b"abc"),
]


@pytest.mark.parametrize("hashed", [BCRYPT, BCRYPT.replace("$2b$", "$2y$"), SCRYPT, PBKDF2, PBKDF2_512])
def test_the_right_one_and_wrong_ones(hashed):
    verify = verifier(hashed)
    assert verify(PASSWORD)
    for wrong in (b"", b"correct hors", b"correct horse ", b"Correct horse"):
        assert not verify(wrong)


@pytest.mark.parametrize(("hashed", "password"), KNOWN)
def test_what_others_have_made(hashed, password):
    assert verifier(hashed)(password)
    assert not verifier(hashed)(password + b"x")


def test_bcrypt_goes_by_the_first_72_bytes_as_everywhere():
    long = b"x" * 100
    verify = verifier(bcrypt.hashpw(long[:72], bcrypt.gensalt(4)).decode())
    assert verify(long)
    assert not verify(long[:71])


@pytest.mark.parametrize(
    ("hashed", "words"),
    [
        ("secret", "is no hash that is known here (plain text is refused); make one with htpasswd -B"),
        ("$apr1$rOioh4Wh$bVD3DRwksETubcpEH90ww0", "is MD5, which is too easily guessed; use bcrypt"),
        ("$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/", "is MD5"),
        ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "is SHA-1"),
        ("{SSHA}0c0blFTXXNuAMHECS4uxrj3ZieMoWImr", "is SHA-1"),
        ("rl.3StKT.4T8M", "is crypt or plain text"),
        ("$6$salt$x", "is crypt's SHA-2"),
        ("{PLAIN}secret", "is no hash that is known here"),
        ("", "is no hash that is known here"),
        (BCRYPT[:-1], "is no whole bcrypt, scrypt or pbkdf2 hash"),
        (BCRYPT.replace("$04$", "$31$"), "has the cost 31, but 4 to 15 are taken"),
        (BCRYPT.replace("$04$", "$03$"), "has the cost 3,"),
        (SCRYPT.replace("ln=4", "ln=40"), "has parameters that can't be used"),
        (SCRYPT.replace("p=1", "p=0"), "has parameters that can't be used"),
        (PBKDF2.replace("$1000$", "$999$"), "has 999 rounds, but 1000 to 10000000 are taken"),
        (PBKDF2.replace("$1000$", "$99999999$"), "has 99999999 rounds"),
        (PBKDF2.rpartition("$")[0] + "$abcd", "is too short"),
        (PBKDF2.rpartition("$")[0] + "$abcde", "is no whole hash: its base64 can't be read"),
        (PBKDF2 + "\n", "is no whole"),
        (BCRYPT + "é", "is no whole"),
    ],
)
def test_what_is_refused_and_why(hashed, words):
    with pytest.raises(ValueError) as error:
        verifier(hashed)
    assert str(error.value).startswith(words)
    assert len(hashed) < 10 or hashed not in str(error.value)


def test_a_file_of_users():
    text = f"# staff\r\nalice:{BCRYPT}\r\n\n  bob:{PBKDF2}  \n"
    assert read_htpasswd(text) == ({"alice": BCRYPT, "bob": PBKDF2}, [])


def test_every_problem_of_a_file_with_its_line():
    text = f"alice\n:x\nbob:plain\nalice:{BCRYPT}\nalice:{BCRYPT}\n"
    users, found = read_htpasswd(text)
    assert users["alice"] == BCRYPT
    assert [line for line, _ in found] == [1, 2, 3, 5]
    assert [words for _, words in found][1:] == [
        "must be NAME:HASH",
        "the password of 'bob' is no hash that is known here (plain text is refused); make one with "
        "htpasswd -B",
        "the user 'alice' is here twice",
    ]


@given(st.text(max_size=80))
def test_any_text_is_a_hash_or_refused_in_words(text):
    try:
        verifier(text)
    except ValueError as error:
        assert str(error).startswith(("is ", "has "))  # noqa: PT017  what is raised at all is checked, too


@given(st.text(max_size=200))
def test_any_file_is_read(text):
    users, _ = read_htpasswd(text)
    assert all(is_user_name(name) for name in users)
