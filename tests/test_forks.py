"""What starts Ray beside calls over gRPC leaves forks to the children."""

from __future__ import annotations

import os
import subprocess
import sys

_FORK_BESIDE_A_CALL = """
import subprocess, threading
from concurrent.futures import ThreadPoolExecutor
from exchange.forks import keep_grpc_out_of_forks
keep_grpc_out_of_forks()
import grpc

going_on, over = threading.Event(), threading.Event()

class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        def wait(request, context):
            going_on.set()
            over.wait(30)
            return request
        return grpc.unary_unary_rpc_method_handler(wait)

server = grpc.server(ThreadPoolExecutor(1), handlers=[Handler()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    call = channel.unary_unary("/a/b").future(b"")
    assert going_on.wait(30)
    # With code before the exec, as Ray does it; without, Python does not fork at all, but uses vfork.
    subprocess.run(["true"], preexec_fn=lambda: None, check=True)
    over.set()
    call.result(30)
server.stop(None).wait(30)
"""


def test_grpc_does_nothing_about_a_fork_and_the_call_beside_it_goes_on() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    ended = subprocess.run(
        [sys.executable, "-c", _FORK_BESIDE_A_CALL],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    # It says so where it skips its handlers.
    assert "fork() handlers" not in ended.stderr


def test_the_command_lines_see_to_it_before_grpc_is_imported() -> None:
    script = (
        "import os, sys, {module}\n"
        "assert 'grpc' not in sys.modules\n"
        "{module}.{function}(['--help'])\n"
        "print(os.environ['GRPC_ENABLE_FORK_SUPPORT'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    for module, function in (("exchange.cli", "run"), ("chaos.cli", "execute")):
        ended = subprocess.run(
            [sys.executable, "-c", script.format(module=module, function=function)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        assert ended.stdout.endswith("\n0\n")
