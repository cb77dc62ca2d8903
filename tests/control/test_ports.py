"""Sockets for workers: one each on the same address."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lb.control.ports import Port, spread
from tests.control.seats import bound


def connected(port: Port, count: int) -> list[socket.socket]:
    address = port.of(0).getsockname()[:2]
    return [socket.create_connection(address) for _ in range(count)]


def accepted(each: socket.socket) -> int:
    count = 0
    while True:
        try:
            each.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_each_worker_has_a_socket_and_a_part_of_the_connections() -> None:
    port = bound()
    assert not port.shared
    assert len({each.getsockname() for each in port.sockets}) == 1
    clients = connected(port, 64)
    counts = [accepted(port.of(seat)) for seat in range(2)]
    assert sum(counts) == 64
    assert min(counts) > 5  # of a fair coin tossed 64 times: one run in 10^12 has fewer
    for each in clients:
        each.close()
    port.close()


def test_without_reuseport_all_accept_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    port = bound(seats=3)
    assert port.shared
    assert port.of(0) is port.of(2)
    port.close()


def test_on_a_unix_socket_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as first:
        first.bind(str(tmp_path / "lb.sock"))
        assert spread(first, 3) == [first]


@pytest.mark.parametrize("seats", [1, 2])
def test_another_balancer_on_the_same_port_is_an_error(seats: int) -> None:
    port = bound()
    number = port.of(0).getsockname()[1]
    with pytest.raises(OSError, match="Address already in use"):
        bound(port=number, seats=seats)
    port.close()
    bound(port=number, seats=seats).close()


def test_where_one_can_not_be_had_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    port = bound()
    with socket.socket() as other:
        other.bind((port.of(0).getsockname()[0], 0))
        monkeypatch.setattr("lb.control.ports._beside", refuse)
        with pytest.raises(OSError, match="no more"):
            spread(other, 2)
    port.close()


def refuse(first: socket.socket) -> socket.socket:
    raise OSError("no more")


def test_over_ipv6() -> None:
    try:
        port = bound("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert len({each.getsockname() for each in port.sockets}) == 1
    port.close()
