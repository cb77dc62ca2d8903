"""The table: its indexes, and whom it tells."""

from __future__ import annotations

from lb.control.registry.model import CRITICAL, PASSING, WARNING, Check, State, from_record, to_record, worst
from lb.control.registry.table import Table
from tests.control.registry.scene import checked, instance


def told(table: Table) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    table.listen(lambda service, name: found.append((service, name)))
    return found


def test_who_registers_is_there_and_everyone_hears_of_it() -> None:
    table = Table()
    heard = told(table)
    table.put(instance("a"), {})
    table.put(instance("b"), {})
    assert [entry.instance.id for entry in table.service("greeter")] == ["a", "b"]
    assert heard == [("greeter", "a"), ("greeter", "b")]


def test_each_change_has_a_higher_index_and_only_of_its_service() -> None:
    table = Table()
    table.put(instance("a"), {})
    before = table.index_of("greeter")
    table.put(instance("x", "other"), {})
    assert table.index_of("greeter") == before
    assert table.index_of("other") > before
    assert table.index_of(None) == table.index_of("other")


def test_the_same_again_is_no_change() -> None:
    table = Table()
    table.put(checked("a"), {"service:a": State(PASSING)})
    index, heard = table.index, told(table)
    table.put(checked("a"), {"service:a": State(PASSING)})
    table.set_state("a", "service:a", State(PASSING, "other words"))
    assert (table.index, heard) == (index, [])
    assert table.entries["a"].states["service:a"].output == "other words"


def test_a_service_that_has_gone_has_an_index_above_that_of_its_last_change() -> None:
    table = Table()
    table.put(instance("a"), {})
    before = table.index_of("greeter")
    table.remove("a")
    assert table.index_of("greeter") > before
    assert table.service("greeter") == []
    assert not list(table.services())


def test_an_id_can_move_to_another_service() -> None:
    table = Table()
    table.put(checked("a"), {})
    table.put(instance("a", "other"), {})
    assert table.service("greeter") == []
    assert [entry.instance.id for entry in table.service("other")] == ["a"]
    assert table.owner_of("service:a") is None


def test_the_worst_check_says_how_someone_is() -> None:
    assert worst({}) == PASSING
    assert worst({"a": State(PASSING), "b": State(WARNING)}) == WARNING
    assert worst({"a": State(CRITICAL), "b": State(WARNING)}) == CRITICAL


def test_replacing_all_touches_only_what_differs() -> None:
    table = Table()
    for name in "abc":
        table.put(instance(name), {})
    heard = told(table)
    table.replace({"a": (instance("a"), {}), "b": (instance("b", port=1), {}), "d": (instance("d"), {})})
    assert heard == [("greeter", "c"), ("greeter", "b"), ("greeter", "d")]
    assert sorted(table.entries) == ["a", "b", "d"]


def test_a_record_is_read_back_as_it_was() -> None:
    whole = instance(
        "a",
        tags=("blue", "é"),
        meta={"zone": "north"},
        weights=(3, 1),
        checks=(Check("c", "alive", 1.5, "a note", 60.0),),
        enable_tag_override=True,
    )
    assert from_record(to_record(whole)) == whole
