"""Work in a forked process sees the state of one moment, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from exchange.engine.commands import AddInstrument, CancelOrder, PlaceOrder, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.words import Stage
from exchange.runtime.aside import AsideFailed, do_aside
from exchange.runtime.codec import ShardType
from exchange.runtime.messages import pack, unpack

INSTRUMENT = Instrument("BTC-USDT", "BTC", "USDT", 2, 4, 6)
TIMEOUT_S = 100.0


async def test_a_dump_is_of_the_sequence_at_which_it_was_begun() -> None:
    kind = ShardType()
    shard = kind.new()
    shard.apply(1, [AddInstrument(INSTRUMENT), SetStage(int(Stage.OPEN))])
    shard.apply(2, [PlaceOrder(1, f"o{n}", "BTC-USDT", 1, 1, 1, 100 + n, 5) for n in range(500)])
    expected = kind.dump(shard, 7)
    dump = do_aside(lambda: kind.dump(shard, 7), TIMEOUT_S)
    # The child has not been waited for; whatever it has come to, this is none of its state.
    shard.apply(3, [CancelOrder(1, "BTC-USDT", f"o{n}") for n in range(0, 500, 2)])
    shard.apply(4, [PlaceOrder(2, f"s{n}", "BTC-USDT", 2, 1, 1, 50, 5) for n in range(100)])
    assert await dump == expected
    assert kind.dump(shard, 7) != expected


async def test_the_child_has_none_of_the_files_of_its_parent() -> None:
    # Neither the lock of a journal nor a connection may outlive the host in its child.
    with open("/proc/self/stat", "rb") as kept:  # noqa: ASYNC230  # opened, not read
        names = unpack(await do_aside(lambda: pack(os.listdir("/proc/self/fd")), TIMEOUT_S))
        assert str(kept.fileno()) not in names
    # Its standard streams, the result, and the directory that it lists.
    assert len(names) <= 5


async def test_a_large_result_comes_whole() -> None:
    assert await do_aside(lambda: bytes(10_000_000), TIMEOUT_S) == bytes(10_000_000)


def fail() -> bytes:
    raise ValueError("no")


def die() -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


@pytest.mark.parametrize(("work", "exit_code"), [(fail, "1"), (die, "-9")])
async def test_a_child_that_fails_is_told(work: Callable[[], bytes], exit_code: str) -> None:
    with pytest.raises(AsideFailed, match=f"exit code {exit_code}$"):
        await do_aside(work, TIMEOUT_S)


def hang() -> bytes:
    signal.pause()
    return b""


async def test_a_child_that_hangs_is_killed() -> None:
    with pytest.raises(AsideFailed, match="not done after 0 s"):
        await do_aside(hang, 0)
    # It is gone, and was waited for by the thread that was left to do it.
