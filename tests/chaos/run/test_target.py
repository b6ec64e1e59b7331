"""An experiment does harm, so it is attached only to what is of this machine or said to be somebody's own."""

from __future__ import annotations

import pytest

from chaos.run.target import TargetRefused, check_targets


@pytest.mark.parametrize("address", ["127.0.0.1:7700", "127.9.9.9:1", "localhost:7700", "[::1]:7700"])
def test_an_exchange_of_this_machine_is_accepted(address: str) -> None:
    check_targets([address], [])


@pytest.mark.parametrize(
    "address", ["10.0.0.7:7700", "exchange.example.com:7700", "0.0.0.0:7700", "127.0.0.1.example.com:7700", "here"]
)
def test_any_other_is_refused_unless_it_is_named_exactly(address: str) -> None:
    with pytest.raises(TargetRefused):
        check_targets([address], [])
    with pytest.raises(TargetRefused):
        check_targets([address], ["10.0.0.7", "exchange.example.com:770", "*"])
    if address != "here":
        check_targets(["127.0.0.1:7700", address], [address])


def test_each_of_several_has_to_be_named() -> None:
    with pytest.raises(TargetRefused, match=r"was 10\.0\.0\.8:7700"):
        check_targets(["10.0.0.7:7700", "10.0.0.8:7700"], ["10.0.0.7:7700"])
