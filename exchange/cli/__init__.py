"""`exchange …`: run an exchange, trade on it, look into it."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; errors end as one line on stderr and exit code 1."""
    import typer

    from exchange.cli.app import app
    from exchange.cli.errors import describe

    try:
        # Outside of standalone mode an exit code is returned, not raised.
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except Exception as error:
        text, code = describe(error)
        print(text, file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)
