from lb.core.edits import Edits, set_host


def values():
    return {"client": b"10.0.0.1", "user": b"alice"}


def nobody_asks():
    raise AssertionError("there is nothing to fill in")


def head(*fields: bytes) -> list[bytes]:
    return [b"GET / HTTP/1.1", *fields]


def test_in_their_order_remove_set_add():
    edits = Edits({"X-A": "1", "x-b": "2"}, {"x-b": ("3", "4"), "x-c": ("5",)}, ("X-C", "x-d"))
    lines = head(b"x-a: 0", b"X-A: 00", b"Accept: */*", b"X-c: 0", b"x-D:0", b"x-e: stays")
    edits.apply(lines, nobody_asks)
    assert lines == head(b"Accept: */*", b"x-e: stays", b"X-A: 1", b"x-b: 2", b"x-b: 3", b"x-b: 4", b"x-c: 5")


def test_the_first_line_is_no_field():
    lines = [b"HTTP/1.1 200 OK: x", b"a: 1"]
    Edits(remove=("http/1.1 200 ok", "a")).apply(lines, nobody_asks)
    assert lines == [b"HTTP/1.1 200 OK: x"]


def test_what_is_filled_in():
    lines = head(b"x-user: root")
    Edits({"x-user": "{user}"}, {"x-ip": ("{client}", "fixed")}).apply(lines, values)
    assert lines == head(b"x-ip: fixed", b"x-user: alice", b"x-ip: 10.0.0.1")


def test_a_second_head_is_changed_alike():
    edits = Edits({"a": "1"}, {"b": ("2",)})
    for _ in range(2):
        lines = head()
        edits.apply(lines, nobody_asks)
        assert lines == head(b"a: 1", b"b: 2")


def test_another_host_is_the_first_field_and_the_only_one():
    lines = head(b"Accept: */*", b"HOST: a.example", b"hostess: stays")
    set_host(lines, b"b.example:8080")
    assert lines == head(b"Host: b.example:8080", b"Accept: */*", b"hostess: stays")


def test_other_spellings_of_what_is_set_or_removed_go_too():
    """A backend that makes variables of names takes X_User for X-User, and would believe the client."""
    lines = head(b"X_User: root", b"x.user: root", b"X-USER: root", b"x-users: stay", b"Re_Moved: 1")
    Edits({"X-User": "alice"}, remove=["re-moved"]).apply(lines, nobody_asks)
    assert lines == head(b"x-users: stay", b"X-User: alice")
