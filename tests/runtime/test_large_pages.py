"""Large pages: they are there where the kernel has them, and nothing is lost or wanted for them where it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exchange.runtime.large_pages import collapse_pages

PROGRAM = """
import ctypes, mmap, threading
from types import SimpleNamespace
from exchange.runtime import large_pages
from exchange.runtime.large_pages import collapse_pages

tried = 0
madvise = ctypes.CDLL(None).madvise

def counting(start, size, advice):
    global tried
    tried += 1
    return madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)

large_pages.ctypes = SimpleNamespace(
    CDLL=lambda _: SimpleNamespace(madvise=counting), c_void_p=None, c_size_t=None, c_int=None
)

def of(field):
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith(field))

# A stack of which little is used, and memory that is wanted but has not been touched, stay as they are.
threading.stack_size(64 << 20)
ended = threading.Event()
thread = threading.Thread(target=ended.wait)
thread.start()
untouched = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
kept = [str(n) for n in range(1_000_000)]
before, small = of("AnonHugePages"), of("Rss")
pages = collapse_pages()
print(tried, pages, of("AnonHugePages") - before, of("Rss") - small, kept == [str(n) for n in range(1_000_000)])
ended.set()
"""


def test_what_is_filled_gets_large_pages_and_nothing_else() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    tried, pages, large_kb, more_kb, is_intact = ran.stdout.split()
    assert is_intact == "True"
    assert int(more_kb) < 16 << 10
    if not int(pages):
        pytest.skip("this kernel makes no large pages")
    assert large_kb == str(int(pages) * 2048)
    # How many of those that are asked for the kernel makes depends on what else lies in memory.
    assert int(tried) * 2048 > 32 << 10


@pytest.mark.parametrize("enabled", ["always madvise [never]\n", None])
def test_where_they_are_off_or_not_known_nothing_is_done(enabled: str | None, tmp_path: Path) -> None:
    (tmp_path / "hpage_pmd_size").write_text("2097152\n")
    if enabled is not None:
        (tmp_path / "enabled").write_text(enabled)
    assert collapse_pages(tmp_path) == 0
