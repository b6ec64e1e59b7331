"""The engine's numbers are those of the protocol."""

from __future__ import annotations

from enum import IntEnum

import pytest

from exchange.engine import words
from exchange.v1 import types_pb2

PAIRS = {
    words.Side: "SIDE",
    words.OrderType: "ORDER_TYPE",
    words.TimeInForce: "TIME_IN_FORCE",
    words.SelfTradePrevention: "SELF_TRADE_PREVENTION",
    words.OrderStatus: "ORDER_STATUS",
    words.CloseReason: "CLOSE_REASON",
    words.Stage: "STAGE",
    words.RejectReason: "REJECT_REASON",
}


@pytest.mark.parametrize(("word", "prefix"), PAIRS.items(), ids=lambda value: getattr(value, "__name__", None))
def test_the_numbers_are_those_of_the_protocol(word: type[IntEnum], prefix: str) -> None:
    protocol = {
        value.name.removeprefix(f"{prefix}_"): value.number
        for value in types_pb2.DESCRIPTOR.enum_types_by_name[word.__name__].values
    }
    # 0 is "unspecified" there, and here what that stands for.
    assert protocol.pop("UNSPECIFIED") == 0
    ours = {member.name: int(member) for member in word if member}
    assert ours == protocol


def test_every_enumeration_is_compared() -> None:
    enumerations = {e for e in vars(words).values() if isinstance(e, type) and issubclass(e, IntEnum)} - {IntEnum}
    assert enumerations == set(PAIRS)
