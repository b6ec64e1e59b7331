"""Errors as a person reads them: one line with a code."""

from __future__ import annotations

import os
import re
import traceback
from enum import Enum

import grpc

_USAGE_EXIT_CODE = 2
_GIVE_A_KEY = "--key or EVENKEEL_API_KEY gives a key, --data the directory of an exchange on this machine"
_NEW_KEY = "`exchange admin key create ACCOUNT` makes a new one"
_HINTS = {
    "UNAVAILABLE": "is an exchange running there? `exchange up` starts one",
    "UNAUTHENTICATED": _GIVE_A_KEY,
    "KEY_INVALID": _GIVE_A_KEY,
    "KEY_EXPIRED": _NEW_KEY,
    "KEY_REVOKED": _NEW_KEY,
    "ASSET_UNKNOWN": "`exchange admin asset list` shows those that there are, `exchange admin asset create` makes one",
    "FUNDS_UNAVAILABLE": "a market that has the money, or the ledger, is away: come back in a moment",
}


class CommandFailed(Exception):
    """A command could not do what it was asked; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def describe(error: Exception) -> tuple[str, int]:
    """Return the line to print ("": all has been said) and the exit code.

    EVENKEEL_TRACEBACK=1 prints where the error came from.
    """
    if os.environ.get("EVENKEEL_TRACEBACK"):
        traceback.print_exception(error)
    # By what it can do rather than by class: typer's own exceptions are not all public.
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        return _describe_usage(error, _one_line(format_message()))
    code, message = _code_and_message(error)
    reference = getattr(error, "reference", "")
    hint = f"`--reference {reference}` sends it again, and it happens once" if reference else _HINTS.get(code)
    return f"error {code}: {message}" + (f" ({hint})" if hint else ""), 1


def _describe_usage(error: Exception, message: str) -> tuple[str, int]:
    exit_code = int(getattr(error, "exit_code", 1))
    if exit_code != _USAGE_EXIT_CODE:
        return f"error: {message}", exit_code
    context = getattr(error, "ctx", None)
    if not message or type(error).__name__ == "NoArgsIsHelpError":
        return "", exit_code  # a group without a command: its help has been printed
    return f"usage: {message} (see `{context.command_path if context else 'exchange'} --help`)", exit_code


def _code_and_message(error: Exception) -> tuple[str, str]:
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code().name, _one_line(error.details() or "no details")
    message = _one_line(str(error))
    code: object = getattr(error, "code", None)
    if isinstance(code, grpc.StatusCode):
        # The SDK's messages begin with it.
        message = message.removeprefix(code.name).removeprefix(": ")
    reason: object = getattr(error, "reason_name", "")
    if reason:
        code = reason
        message = message.removesuffix(f" ({reason})")
    if isinstance(code, Enum):
        code = code.name
    return str(code or _code_of(type(error))), message


def _code_of(kind: type[Exception]) -> str:
    """Return an error's class as a code: INVALID_NUMBER of `InvalidNumber`."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", kind.__name__).upper()


def _one_line(text: str) -> str:
    return " ".join(text.split())
