"""An exchange that does not start says why."""

import pytest

from chaos.exchange_process import ExchangeNotStarted, running_exchange


def test_settings_that_are_wrong_are_told_as_the_exchange_tells_them() -> None:
    with (
        pytest.raises(ExchangeNotStarted, match=r"expected an exchange that serves, found: (?s:.*)target_ns"),
        running_exchange("[codel]\ntarget_ns = 1\n"),
    ):
        pytest.fail("it started")
