"""`chaos …`: experiments with an exchange."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from exchange.forks import keep_grpc_out_of_forks


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit, with the codes of `chaos.run.record.ExitCode`; 130 when interrupted."""
    sys.exit(execute(arguments))


def execute(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. `arguments`: those of the process if not given."""
    keep_grpc_out_of_forks()
    try:
        import typer

        from chaos.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("chaos", "exchange")):
            raise
        message = f"expected the package {error.name}, found none: pip install 'evenkeel[server,chaos]'"
        print(f"error NOT_INSTALLED: {message}", file=sys.stderr)
        return 2
    from chaos.cli.errors import describe

    try:
        # Not standalone, because errors are told in a way of their own; an exit code then comes as what is returned.
        listed = None if arguments is None else list(arguments)
        code = app(args=listed, prog_name="chaos", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except typer.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        # The reader has seen enough (`chaos … | head`); Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        text, code = describe(error)
        if text:
            print(text, file=sys.stderr)
        return code
