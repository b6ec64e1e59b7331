"""`exchange …`: run an exchange, trade on it, look into it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from exchange.forks import keep_grpc_out_of_forks


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, or 1 with one line on stderr, 2 for wrong usage, 130 when interrupted."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. `arguments`: those of the process if not given."""
    keep_grpc_out_of_forks()
    try:
        import typer

        from exchange.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("exchange"):
            raise
        message = f"expected the package {error.name}, found none: pip install 'evenkeel[server]'"
        print(f"error NOT_INSTALLED: {message}", file=sys.stderr)
        return 1
    from exchange.cli.errors import describe

    try:
        # Not standalone, because errors are told in a way of their own; an exit code then comes as what is returned.
        listed = None if arguments is None else list(arguments)
        code = app(args=listed, prog_name="exchange", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except typer.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        # The reader has seen enough (`exchange … | head`); Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        text, code = describe(error)
        if text:
            print(text, file=sys.stderr)
        return code
