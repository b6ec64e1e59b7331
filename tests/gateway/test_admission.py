"""New settings at a link: what was learnt stays where they are the same."""

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
