"""gRPC in processes that fork: those that start Ray, which forks with code before the exec.

gRPC stops its threads around a fork if it can. If it cannot, as calls are under way, its handlers meet a child with
files closed under them: beside a single call, 6 of 40 children died of SIGSEGV or SIGABRT before their exec, and none
without the handlers (measured, grpcio 1.85.1). What they were to become then did not start. Nothing here calls in a
child that was forked, so gRPC need not care at all.
"""

from __future__ import annotations

import os


def keep_grpc_out_of_forks() -> None:
    """Have gRPC leave forks alone, unless the environment says otherwise; it looks there when it is imported."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
