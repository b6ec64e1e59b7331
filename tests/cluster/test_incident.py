"""The incident and its cure, for real: from the same restart nobody recovers without the policies, all do with them."""

import pytest

from chaos.incident import PROFILES, SCENARIOS, run

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.mark.parametrize(("profile", "recovers"), [("naive", False), ("staged", True)])
def test_a_restart_under_load(profile: str, recovers: bool) -> None:
    outcome = run(SCENARIOS["cold"], PROFILES[profile])
    assert (outcome.recovered_after_s is not None) == recovers, outcome.figures()
    amplification = outcome.figures()["amplification"]
    assert amplification <= 1.5 if recovers else amplification > 3
