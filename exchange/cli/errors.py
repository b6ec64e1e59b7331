"""Errors as a person reads them: one line with a code."""

from __future__ import annotations

import os
import traceback

import grpc
from click.exceptions import ClickException, UsageError


class CommandFailed(Exception):
    """A command could not do what it was asked; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def describe(error: Exception) -> tuple[str, int]:
    """Return the line to print and the exit code. EVENKEEL_TRACEBACK=1 shows where it came from."""
    if os.environ.get("EVENKEEL_TRACEBACK"):
        traceback.print_exception(error)
    if isinstance(error, UsageError):
        context = error.ctx.command_path if error.ctx else "exchange"
        return f"usage: {error.format_message()} (see `{context} --help`)", 2
    if isinstance(error, ClickException):
        return f"error: {error.format_message()}", 1
    reason = getattr(error, "reason", None)
    code = getattr(error, "code", None) or getattr(reason, "name", None) or type(error).__name__
    if isinstance(error, grpc.aio.AioRpcError):
        return f"error {error.code().name}: {error.details()}", 1
    return f"error {code}: {error}", 1
