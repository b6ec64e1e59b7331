"""Errors as a person reads them: one line with a code."""

from __future__ import annotations

import os
import traceback
from typing import Any

import grpc
import typer

# Typer brings a click of its own, whose base of all usage errors has no public name.
_USAGE_ERRORS = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")


class CommandFailed(Exception):
    """A command could not do what it was asked; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def describe(error: Exception) -> tuple[str, int]:
    """Return the line to print and the exit code. EVENKEEL_TRACEBACK=1 shows where it came from."""
    if os.environ.get("EVENKEEL_TRACEBACK"):
        traceback.print_exception(error)
    if isinstance(error, _USAGE_ERRORS):
        context: Any = getattr(error, "ctx", None)
        command = context.command_path if context else "exchange"
        return f"usage: {error} (see `{command} --help`)", 2
    reason = getattr(error, "reason", None)
    code = getattr(error, "code", None) or getattr(reason, "name", None) or type(error).__name__
    if isinstance(error, grpc.aio.AioRpcError):
        return f"error {error.code().name}: {error.details()}", 1
    return f"error {code}: {error}", 1
