"""Large pages for what a process has in memory, where the kernel has them.

A command that names one of a million orders reads some ten places of a gigabyte. Where pages have 4 KB, the processor
has to look most of them up in tables that are in none of its caches either: a tenth of what the command takes. Python
takes its memory from the kernel a megabyte at a time, too little for a large page, so they are made afterwards, from
what is there (Linux 6.1 and later; see madvise(2), MADV_COLLAPSE). Where the machine's settings say `never`, it is not
done.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Iterator
from pathlib import Path

INTERVAL_S = 30.0
FILLED_MIN = 0.9
"""Of a mapping: less may be the stack of a thread, of which a large page would make memory that nobody needs."""
_SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
_MAPPINGS = Path("/proc/self/smaps")
_MADV_COLLAPSE = 25


def collapse_pages(settings: Path = _SETTINGS) -> int:
    """Put small pages that lie side by side together to large ones; return how many large ones there are.

    Whoever else uses the memory meanwhile may wait some milliseconds. To do it again costs little. What the kernel does
    not do, because it is too old, say, or has no memory, stays as it was.
    """
    try:
        page = int((settings / "hpage_pmd_size").read_text())
        mappings = [] if "[never]" in (settings / "enabled").read_text() else list(_filled())
    except OSError:
        return 0
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    starts = (start for first, end in mappings for start in range(-(-first // page) * page, end - page + 1, page))
    # One at a time: as long as one takes, nobody else gets memory.
    return sum(madvise(start, page, _MADV_COLLAPSE) == 0 for start in starts)


def _filled() -> Iterator[tuple[int, int]]:
    """Yield from where to where this process's own mappings reach that are in memory almost as a whole."""
    first = end = 0
    is_own = False
    for line in _MAPPINGS.read_text().splitlines():
        head, *rest = line.split()
        if not head.endswith(":"):
            first, end = (int(address, 16) for address in head.split("-"))
            is_own = rest[0] == "rw-p" and (len(rest) == 4 or rest[4] == "[heap]")
        elif head == "Rss:" and is_own and int(rest[0]) * 1024 >= FILLED_MIN * (end - first):
            yield first, end


async def keep_large_pages() -> None:
    """Collapse the pages of what has come to stay, from time to time, until cancelled."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        await asyncio.to_thread(collapse_pages)
