"""A command that failed says so with its exit code."""

from __future__ import annotations

import sys

import pytest

from exchange.cli import main


@pytest.mark.parametrize("code", [0, 1])
def test_the_demo_ends_with_the_code_that_it_returned(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.cli.demo.run", lambda _: code)
    monkeypatch.setattr(sys, "argv", ["exchange", "demo"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code


def test_a_wrong_use_ends_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["exchange", "nonsense"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
