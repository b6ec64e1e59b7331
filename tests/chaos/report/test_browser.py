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
    always = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")
    done = subprocess.run(
        ["chromium", *always, f"--user-data-dir={profile}", "--enable-logging=stderr", *options, path.as_uri()],
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
    compared.write_text(render_comparison(compare(read_side(runs[0]), read_side(runs[1]))), encoding="utf-8")
    return [*(write_report(read_run(run)) for run in runs), compared]


def test_a_page_loads_without_a_complaint_and_zooms(pages: list[Path], tmp_path: Path) -> None:
    for path in pages:
        probed = path.with_name("probed.html")
        probed.write_text(path.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
        document, said = opened(
            probed, tmp_path / "profile", "--dump-dom", "--virtual-time-budget=2000", "--window-size=500,900"
        )
        assert "CONSOLE" not in said, said
        probe = re.search(r'data-probe="told=at (-?[\d.]+) s view=(\S+) 0 (\S+) \d+ over=0"', document)
        assert probe is not None, "a cursor is told, and nothing is wider than the window"
        assert float(probe[3]) == pytest.approx(37.5), "half of the time is shown"


def test_a_page_without_scripts_has_all_charts(pages: list[Path], tmp_path: Path) -> None:
    """They are forbidden by the page's policy, because the browser dumps no document if they are switched off."""
    for path in pages:
        still = path.with_name("still.html")
        html = path.read_text(encoding="utf-8").replace("script-src 'unsafe-inline'", "script-src 'none'")
        still.write_text(html, encoding="utf-8")
        document, _ = opened(still, tmp_path / "profile", "--dump-dom")
        assert '<html lang="en">' in document, "no script has marked it"
        assert document.count("<polyline") == html.count("<polyline") >= 8
