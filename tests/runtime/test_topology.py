from exchange.runtime.topology import Hosts, Topology


def test_a_topology_is_the_same_after_the_way() -> None:
    topology = Topology((3, 17), "supervisor-1", {"ledger": Hosts(4, 9), "shard-0": Hosts(0)})
    assert Topology.unpack(topology.pack()) == topology


def test_a_later_supervisor_is_believed_over_more_changes_of_an_earlier_one() -> None:
    topology = Topology((3, 0), "supervisor-1", {})
    assert topology.is_newer_than((2, 99))
    assert not topology.is_newer_than((3, 0))
    assert not topology.is_newer_than((3, 1))
