"""`chaos load` refuses what is not its own to load, and says what it lacks."""

from pathlib import Path

import pytest

from chaos.cli import run


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
    assert run(["load", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error {code}: expected ")


def test_a_replay_needs_its_recording(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["load", "--target", "echo", "--behaviour", "replay"]) == 2
    assert "--recording" in capsys.readouterr().err


def test_a_target_that_nobody_serves_is_unreachable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key\n")
    # Port 1 is reserved, and nobody listens there.
    assert run(["load", "--target", "127.0.0.1:1", "--keys", str(keys)]) == 3
    assert capsys.readouterr().err.startswith("error TARGET_UNREACHABLE: expected an exchange at 127.0.0.1:1")
