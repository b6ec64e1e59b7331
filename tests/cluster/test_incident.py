"""The incident and its cure, for real: from the same restart nobody recovers without the policies, all do with them."""

from pathlib import Path

import pytest

from chaos.cli import execute
from chaos.demo import NAIVE, STAGED
from chaos.run.record import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.mark.parametrize("name", [NAIVE, STAGED])
def test_it_stays_down_without_the_policies_and_comes_back_with_them(name: str, tmp_path: Path) -> None:
    assert execute(["run", name, "--out", str(tmp_path / name)]) == ExitCode.HELD
