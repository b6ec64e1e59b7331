"""The pages in a browser: nothing on its console, no side scroll on a telephone, and all there without scripts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chaos.report.comparison import compare, read_side, render_comparison
from chaos.report.page import write_report
from chaos.report.reading import read_run
from tests.chaos.report.synthetic import write_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="expected chromium, found none"),
]
PROBE = """<script>
addEventListener("load", () => {
  const group = document.querySelector(".timeline");
  group.dispatchEvent(new KeyboardEvent("keydown", { key: "+" }));
  group.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  const told = document.querySelector("[data-at]").textContent;
  const view = document.querySelector(".timeline .plot").getAttribute("viewBox");
  const over = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.body.dataset.probe = `told=${told} view=${view} over=${over}`;
});
</script></body>"""


def opened(path: Path, profile: Path, *options: str) -> tuple[str, str]:
    """Return a page's document after it has loaded, and what the browser has said."""
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        + [f"--user-data-dir={profile}", "--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom"]
        + [*options, path.as_uri()],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return done.stdout, done.stderr


@pytest.fixture
def pages(tmp_path: Path) -> list[Path]:
    runs = [write_run(tmp_path / "held"), write_run(tmp_path / "naive", is_naive=True)]
    compared = tmp_path / "compare.html"
    compared.write_text(render_comparison(compare(*map(read_side, runs))), encoding="utf-8")
    return [*(write_report(read_run(run)) for run in runs), compared]


def test_a_page_loads_without_a_complaint_and_zooms(pages: list[Path], tmp_path: Path) -> None:
    for path in pages:
        probed = path.with_name("probed.html")
        probed.write_text(path.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
        document, said = opened(probed, tmp_path / "profile", "--window-size=500,900")
        assert "CONSOLE" not in said, said
        probe = re.search(r'data-probe="told=at (-?[\d.]+) s view=(\S+) 0 (\S+) \d+ over=0"', document)
        assert probe is not None, "a cursor is told, and nothing is wider than the window"
        assert float(probe[3]) == pytest.approx(37.5), "half of the time is shown"


def test_a_page_without_scripts_is_drawn_as_with_them(pages: list[Path], tmp_path: Path) -> None:
    """The browser dumps no document without scripts, so what it draws is taken: a page of curves is no small picture."""
    for path in pages:
        drawn = []
        for name, options in (("without", ["--blink-settings=scriptEnabled=false"]), ("with", [])):
            picture = tmp_path / f"{path.parent.name}-{name}.png"
            _, said = opened(path, tmp_path / "profile", *options, f"--screenshot={picture}", "--window-size=1280,2000")
            assert "CONSOLE" not in said, said
            drawn.append(picture.stat().st_size)
        without, with_scripts = drawn
        # The tools of the time line are all that is more.
        assert without > 0.8 * with_scripts
