"""Who may tell the public something: those with an operator's key of the exchange.

While the exchange is up it is asked, so a key that was revoked is refused at once. What it confirmed is remembered as a
hash, so that operators can still speak when it is down, which is when they have most to say.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path

from exchange.client import AsyncClient, EvenkeelError, PermissionDenied, Unauthenticated
from status.prepare import write_private

HASHES_FILE = "operators.sha256"


class NotAnOperator(PermissionError):
    """The key is not an operator's, or nobody can say."""

    code = "OPERATOR_KEY_NEEDED"


def hash_of(key: str) -> str:
    """A plain hash will do, since a key is 256 random bits."""
    return sha256(key.encode()).hexdigest()


def remember(file: Path, key: str) -> None:
    """An operator's key that the exchange knows."""
    known = _read(file)
    if hash_of(key) not in known:
        write_private(file, "\n".join([*known, hash_of(key)]))


def forget(file: Path, key: str) -> None:
    known = _read(file)
    if hash_of(key) in known:
        write_private(file, "\n".join(found for found in known if found != hash_of(key)))


class Operators:
    def __init__(self, addresses: tuple[str, ...], file: Path, timeout_s: float = 2.0) -> None:
        self._addresses = addresses
        self._file = file
        self._timeout_s = timeout_s

    async def check(self, key: str) -> None:
        """Raises `NotAnOperator` for a key that is none."""
        if not key:
            raise NotAnOperator("expected metadata 'authorization: Bearer KEY' with an operator's key, found none")
        try:
            async with AsyncClient(self._addresses, key, timeout=self._timeout_s, retry="none") as client:
                await client.maintenance()
        except (Unauthenticated, PermissionDenied) as error:
            forget(self._file, key)
            raise NotAnOperator(f"expected an operator's key; the exchange says: {error}") from error
        except EvenkeelError as error:
            if any(hmac.compare_digest(hash_of(key), known) for known in _read(self._file)):
                return
            raise NotAnOperator(
                "the exchange cannot be asked now, and this key was not an operator's before: use one that was"
            ) from error
        remember(self._file, key)


def _read(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").split()
    except FileNotFoundError:
        return []
