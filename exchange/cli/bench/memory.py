"""`memory`: bytes that a resting order takes in the shard, all that belongs to it included."""

from __future__ import annotations

import gc
import subprocess
import sys

from exchange.cli.bench import Figure
from exchange.cli.bench.flow import OrderFlow, open_shard

ORDERS = 500_000


def measure() -> Figure:
    """Return the growth of a process of its own by resting orders; reference: the bytes of an order as it is sent."""
    run = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, check=True)
    per_order, per_command = (float(part) for part in run.stdout.split())
    detail = f"growth of a process with {ORDERS:,} resting orders; reference: the order's command alone"
    return Figure(
        "memory", per_order, "bytes/order", reference=per_command, ratio=per_order / per_command, detail=detail
    )


def resident_bytes() -> int:
    """Return what this process holds in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4_096


def main() -> None:
    """Fill a shard and print the bytes of an order with, and of its command without, what the shard keeps."""
    gc.disable()
    empty = resident_bytes()
    commands = OrderFlow(1).resting(ORDERS, prices_per_side=5_000)
    # The flow keeps a shard of its own beside the commands.
    with_flow = resident_bytes()
    shard = open_shard()
    shard.apply(1, commands)
    filled = resident_bytes()
    kept_by_shard = (filled - with_flow) / ORDERS
    command = (with_flow - empty) / ORDERS - kept_by_shard
    # The shard keeps the command as well: an order's memory is both.
    print(kept_by_shard + command, command)


if __name__ == "__main__":
    main()
