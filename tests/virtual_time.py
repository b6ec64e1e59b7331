"""An event loop whose clock stands while anything can run, and then jumps to the next timer.

Seconds of waiting pass at once, and always in the same order.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any

_SHORTEST_S = 1e-6
"""More than what is lost when times are added, so that a timer is due once its time has come."""


class _JumpingSelector(selectors.DefaultSelector):
    """Passes the time that it is asked to wait; it waits for real only where no timer would end that."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(None if timeout is None else 0)
        if timeout and not events:
            self.now_s += max(timeout, _SHORTEST_S)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    def advance(self, seconds: float) -> None:
        """Have so much time pass now, as work takes it."""
        self._jumping.now_s += seconds


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on such a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(work)


def now_s() -> float:
    """Return the time of the running loop."""
    return asyncio.get_running_loop().time()


class AtOnce(Executor):
    """Runs what it is given where it stands, so that no thread's pace matters."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future
