"""Whether packets pass is seen without anybody who listens: who is there refuses."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from chaos.worlds.reach import CLOSED_PORT, listens, passes
from exchange.netns import LocalNetwork, missing


def test_who_listens_and_who_refuses_is_there() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert (passes("127.0.0.1", port), listens("127.0.0.1", port)) == (True, False)
        server.listen()
        assert (passes("127.0.0.1", port), listens("127.0.0.1", port)) == (True, True)


@pytest.fixture
def network() -> Iterator[LocalNetwork]:
    network = LocalNetwork(3)
    try:
        network.make()
        yield network
    finally:
        network.remove()


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(60)
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_link_that_is_cut_is_seen_to_be_and_one_that_is_back_too(network: LocalNetwork) -> None:
    def reached(sender: int) -> list[int]:
        with network.inside(sender):
            return [peer for peer in range(3) if peer != sender and passes(network.address(peer), CLOSED_PORT)]

    assert (reached(0), reached(1), reached(2)) == ([1, 2], [0, 2], [0, 1])
    network.cut_way(0, 1)
    # The question is lost in one direction, its answer in the other.
    assert (reached(0), reached(1), reached(2)) == ([2], [2], [0, 1])
    network.heal(0)
    network.cut(0)
    assert (reached(0), reached(1)) == ([], [2])
    assert not passes(network.address(0), CLOSED_PORT)
    network.heal(0)
    # Who was asked for in vain is asked for again after a second: so a rollback waits.
    while (reached(0), reached(1), reached(2)) != ([1, 2], [0, 2], [0, 1]):
        pass
    while not passes(network.address(0), CLOSED_PORT):
        pass
