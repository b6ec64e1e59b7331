"""What the SDK asks of the world besides the network, passed in so that tests run in virtual time."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Environment:
    clock: Callable[[], float] = time.monotonic
    """Seconds, never going back."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random
    """Uniform in [0, 1)."""
