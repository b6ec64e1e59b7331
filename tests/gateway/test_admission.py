"""What a link has learnt: kept through settings that do not change it, and never what nobody could unlearn."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from exchange.gateway.admission import Admission
from exchange.overload.classes import WorkClass
from exchange.runtime.messages import HostLoad
from exchange.settings import Codel, Credits, Settings


@dataclass
class Item:
    commands: int = 64
    size: int = 100
    queued_s: float = 0.0
    deadline_s: float = 10.0
    work_class: WorkClass = WorkClass.ORDERS


def test_credits_that_were_earned_are_kept_through_settings_that_do_not_change_them() -> None:
    admission = Admission[Item]("shard-0", Settings(), lambda: 0.0, lambda: 0.5)
    start = admission.batch_max
    for _ in range(3):
        admission.note_batch([(Item(commands=admission.batch_max), True)], 0.01, HostLoad(1.0, 100_000.0))
    earned = admission.batch_max
    assert earned > start
    admission.apply_settings(msgspec.structs.replace(Settings(), codel=Codel(target_ms=20)))
    assert admission.batch_max == earned
    admission.apply_settings(msgspec.structs.replace(Settings(), credits=Credits(start=7)))
    assert admission.batch_max == 7


def test_a_rate_that_was_learnt_from_a_host_that_hung_is_unlearnt_once_it_serves_again() -> None:
    now_s = 0.0
    admission = Admission[Item]("shard-0", Settings(), lambda: now_s, lambda: 0.5)

    def order() -> Item:
        return Item(commands=1, queued_s=now_s, deadline_s=now_s + 1.0)

    def serve(spent_s: float) -> None:
        """Take one order, leave another behind, and have it answered so much later."""
        nonlocal now_s
        admission.put(order())
        admission.put(order())
        item = admission.first(WorkClass.ORDERS)
        assert item is not None
        admission.take(WorkClass.ORDERS)
        admission.note_taken()
        now_s += spent_s
        admission.note_batch([(item, True)], spent_s, None)
        admission.take(WorkClass.ORDERS)
        admission.note_empty(WorkClass.ORDERS)

    for _ in range(10):
        serve(4.0)
    assert admission.refuses(order()) is None, "nothing waits, so there is no queue that it would be late for"
    admission.put(order())
    assert admission.refuses(order()) is not None, "a second one would wait for seconds"
    admission.take(WorkClass.ORDERS)
    for _ in range(300):
        serve(0.01)
    admission.put(order())
    assert admission.refuses(order()) is None, "it is as fast as before, and that is known"
