"""`chaos load` refuses what is not its own to load, and says what it lacks and what became of it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chaos.cli import execute
from chaos.load import echo
from chaos.load.plan import LoadPlan
from chaos.load.seconds import LoadSecond, Seconds
from chaos.report.latencies import read_latencies


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--target", "192.0.2.1:50051"], "TARGET_REFUSED"),
        (["--target", "192.0.2.1:50051", "--i-own-this-target", "192.0.2.1:50052"], "TARGET_REFUSED"),
        (["--target", "192.0.2.1:50051", "--i-own-this-target", "192.0.2.1:50051"], "LOAD_KEY_MISSING"),
        (["--target", "localhost"], "TARGET_REFUSED"),
        (["--target", "127.0.0.1:50051"], "LOAD_KEY_MISSING"),
    ],
)
def test_a_load_that_may_not_be_begun_is_told_by_its_code(
    arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["load", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error {code}: expected ")


def test_a_replay_needs_its_recording(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["load", "--target", "echo", "--behaviour", "replay"]) == 2
    assert "--recording" in capsys.readouterr().err


def test_a_target_that_nobody_serves_is_unreachable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key\n")
    # Port 1 is reserved, and nobody listens there.
    assert execute(["load", "--target", "127.0.0.1:1", "--keys", str(keys)]) == 3
    assert capsys.readouterr().err.startswith("error TARGET_UNREACHABLE: expected an exchange at 127.0.0.1:1")


class ScriptedWorkers:
    """As if processes had sent a plan, each request so late, and all were acknowledged 10 ms after their time."""

    late_s = 0.001
    finished = 0

    def __init__(self, plan: LoadPlan, logs: Path, workers: int) -> None:
        seconds = Seconds({group.name: 1.0 for group in plan.groups})
        for at_s, _ in plan.schedule():
            seconds.due(at_s, "place", plan.markets[0].symbol)
            seconds.sent(at_s, self.late_s)
            seconds.answered(at_s, "place", plan.markets[0].symbol, plan.groups[0].name, 0.01, rejected=False)
        self._left = iter(seconds.complete(plan.duration_s, plan.duration_s))

    async def start(self) -> None: ...

    async def begin(self, at_monotonic_ns: int) -> None: ...

    async def next_second(self) -> LoadSecond | None:
        return next(self._left, None)

    async def finish(self) -> None:
        type(self).finished += 1


class LateWorkers(ScriptedWorkers):
    late_s = 0.02


@asynccontextmanager
async def no_echo() -> AsyncIterator[str]:
    yield "127.0.0.1:1"


ARGUMENTS = [
    "load",
    "--target",
    "echo",
    "--rate",
    "50",
    "--duration",
    "4",
    "--arrivals",
    "constant",
    "--shape",
    "steps",
]


@pytest.mark.parametrize(("workers", "exit_code", "kept"), [(ScriptedWorkers, 0, True), (LateWorkers, 1, False)])
def test_a_load_is_summed_up_and_says_whether_it_kept_its_schedule(
    workers: type[ScriptedWorkers],
    exit_code: int,
    kept: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("chaos.cli.load.LoadWorkers", workers)
    monkeypatch.setattr(echo, "running_echo", no_echo)
    finished = workers.finished
    assert execute([*ARGUMENTS, "--json", "--hdr", str(tmp_path / "load.hlog")]) == exit_code
    summary = json.loads(capsys.readouterr().out)
    assert (summary["kept_schedule"], summary["seconds"]) == (kept, 4)
    assert summary["goodput_per_s"] == summary["offered_per_s"] == pytest.approx(50 * 0.625, abs=3)
    assert summary["latencies"]["place"]["p99_ms"] == pytest.approx(10.0, rel=0.01)
    assert [latency.t for latency in read_latencies(tmp_path / "load.hlog")] == [0.0, 1.0, 2.0, 3.0]
    assert execute(ARGUMENTS) == exit_code
    shown = " ".join(capsys.readouterr().out.split())
    assert ("the generator kept its schedule" in shown) == kept
    assert ("did NOT keep its schedule" in shown) != kept
    assert workers.finished == finished + 2
