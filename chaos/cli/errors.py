"""Errors as a person reads them, `error CODE: message`, and as a pipeline does, by exit code."""

from __future__ import annotations

import os
import traceback

from chaos.run.record import ExitCode

_EXIT_CODES = {
    "EXPERIMENT_INVALID": ExitCode.INVALID,
    "EXPERIMENT_UNKNOWN": ExitCode.INVALID,
    "TARGET_REFUSED": ExitCode.INVALID,
    "TARGET_UNREACHABLE": ExitCode.NO_STEADY_STATE,
    "START_FAILED": ExitCode.NO_STEADY_STATE,
    "LOAD_FAILED": ExitCode.ABORTED,
    "FAULT_NOT_INJECTED": ExitCode.NOT_INJECTED,
    "ROLLBACK_FAILED": ExitCode.ROLLBACK_FAILED,
}
_USAGE_EXIT_CODE = 2


def describe(error: Exception) -> tuple[str, int]:
    """Return the lines to print ("": all has been said) and the exit code.

    EVENKEEL_TRACEBACK=1 prints where the error came from.
    """
    if os.environ.get("EVENKEEL_TRACEBACK"):
        traceback.print_exception(error)
    # By what it can do rather than by class: typer's own exceptions are not all public.
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        return _describe_usage(error, " ".join(format_message().split()))
    code = str(getattr(error, "code", None) or type(error).__name__)
    lines = [f"error {code}: {line.strip()}" for line in str(error).splitlines()] or [f"error {code}"]
    return "\n".join(lines), int(_EXIT_CODES.get(code, ExitCode.INVALID))


def _describe_usage(error: Exception, message: str) -> tuple[str, int]:
    exit_code = int(getattr(error, "exit_code", 1))
    if exit_code != _USAGE_EXIT_CODE:
        return f"error: {message}", exit_code
    context = getattr(error, "ctx", None)
    if not message or type(error).__name__ == "NoArgsIsHelpError":
        return "", exit_code  # a group without a command: its help has been printed
    return f"usage: {message} (see `{context.command_path if context else 'chaos'} --help`)", exit_code
