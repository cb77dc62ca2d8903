"""Sockets for workers: one each on the same address."""

from __future__ import annotations

import socket

import pytest

from lb.control.ports import Port, bind


def connected(port: Port, count: int) -> list[socket.socket]:
    address = port.sockets[0].getsockname()[:2]
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
    port = bind("127.0.0.1", 0, 2, 128)
    assert not port.shared
    assert len({each.getsockname() for each in port.sockets}) == 1
    assert port.name == "{}:{}".format(*port.sockets[0].getsockname())
    clients = connected(port, 64)
    counts = [accepted(port.of(seat)) for seat in range(2)]
    assert sum(counts) == 64
    assert min(counts) > 5  # of a fair coin tossed 64 times: one run in 10^12 has fewer
    for each in clients:
        each.close()
    port.close()


def test_who_is_alone_shares_with_nobody() -> None:
    port = bind("127.0.0.1", 0, 1, 128)
    assert port.of(0).getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
    port.close()


def test_without_reuseport_all_accept_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    port = bind("127.0.0.1", 0, 3, 128)
    assert port.shared
    assert port.of(0) is port.of(2)
    port.close()


@pytest.mark.parametrize("seats", [1, 2])
def test_another_balancer_on_the_same_port_is_an_error(seats: int) -> None:
    port = bind("127.0.0.1", 0, 2, 128)
    number = port.sockets[0].getsockname()[1]
    with pytest.raises(OSError, match="Address already in use"):
        bind("127.0.0.1", number, seats, 128)
    port.close()
    bind("127.0.0.1", number, seats, 128).close()


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(OSError):
        bind("192.0.2.1", 0, 2, 128)


def test_the_name_of_an_ipv6_address_has_brackets() -> None:
    try:
        port = bind("::1", 0, 2, 128)
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert port.name.startswith("[::1]:")
    port.close()
