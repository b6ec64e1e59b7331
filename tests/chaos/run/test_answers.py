"""What the logs of clients say of their requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chaos.load.client_log import ACKNOWLEDGED, UNKNOWN, ClientLog
from chaos.run.answers import read_answers

BEGUN_NS = 1_000_000_000
CANCEL: dict[str, Any] = {"i": 0, "k": "cancel", "sym": "BTC-USDT"}


def test_an_answer_is_one_to_the_gateway_that_the_request_was_sent_to_first(tmp_path: Path) -> None:
    with ClientLog(tmp_path / "maker.log") as log:
        log.write("send", m=1, **CANCEL, due=2 * BEGUN_NS, gw="a:1")
        # Its client finds another gateway meanwhile, and tries again there.
        log.write("out", m=1, **CANCEL, o=UNKNOWN, gw="b:1")
        log.write("send", m=2, **CANCEL, due=2 * BEGUN_NS, gw="b:1")
        log.write("out", m=2, **CANCEL, o=ACKNOWLEDGED, gw="b:1")
        log.write("send", m=3, **CANCEL, due=3 * BEGUN_NS, gw="b:1")
        log.write("out", m=3, **CANCEL, o=ACKNOWLEDGED, gw="b:1")
    answers = read_answers(tmp_path, ["maker"], BEGUN_NS)
    assert [(answer.due_s, answer.gateway) for answer in answers] == [(1.0, "a:1"), (1.0, "a:1"), (2.0, "b:1")]
    assert [answer.is_unknown for answer in answers] == [True, False, False]
