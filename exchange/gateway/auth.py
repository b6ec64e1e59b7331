"""Who calls: API keys, from the gateway's copy of the ledger."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, NamedTuple

import grpc

from exchange.engine.ledger import Account, ApiKey, LedgerEventKind, Permission
from exchange.gateway.errors import UNAVAILABLE_RETRY_MS, abort
from exchange.runtime.feed import unpack_batch
from exchange.runtime.messages import unpack


class Caller(NamedTuple):
    """The owner of a key, and what the key may do."""

    account: int
    key_id: str
    permissions: tuple[int, ...]

    def may(self, permission: Permission) -> bool:
        return int(permission) in self.permissions


class LedgerReplica:
    """A copy of the ledger's accounts and keys, kept from its feed."""

    def __init__(self) -> None:
        self.sequence = -1
        self.accounts: dict[int, Account] = {}
        self.api_keys: dict[str, ApiKey] = {}
        self._by_hash: dict[str, ApiKey] = {}

    @property
    def is_loaded(self) -> bool:
        return self.sequence >= 0

    def load(self, dump: bytes) -> None:
        """Start from the ledger's packed dump."""
        _, self.sequence, _, accounts, api_keys = unpack(dump)
        self.accounts = {row[0]: Account(*row) for row in accounts}
        self.api_keys = {row[0]: ApiKey(*row) for row in api_keys}
        self._by_hash = {key.key_hash: key for key in self.api_keys.values()}

    def apply(self, data: bytes) -> None:
        """Go on with a packed FeedBatch."""
        batch = unpack_batch(data)
        for kind, _, row in batch.events:
            if kind == LedgerEventKind.ACCOUNT:
                self.accounts[row[0]] = Account(*row)
            else:
                key = ApiKey(*row)
                self.api_keys[key.key_id] = self._by_hash[key.key_hash] = key
        self.sequence = batch.last_sequence

    def find(self, secret: str) -> Caller | None:
        """Return the owner of a key that is valid."""
        key = self._by_hash.get(hash_of_key(secret))
        return None if key is None or key.revoked else Caller(key.account, key.key_id, key.permissions)


def hash_of_key(secret: str) -> str:
    """Return what is stored of a key. A plain hash will do, since a key is 256 random bits."""
    return sha256(secret.encode()).hexdigest()


async def authenticate(context: Any, ledger: LedgerReplica, permission: Permission) -> Caller:
    """Return who calls; end the call with UNAUTHENTICATED or PERMISSION_DENIED if the key will not do."""
    given = next((value for name, value in context.invocation_metadata() or () if name == "authorization"), "")
    scheme, _, secret = given.partition(" ")
    if not ledger.is_loaded:
        message = "the gateway does not know the keys yet"
        await abort(context, grpc.StatusCode.UNAVAILABLE, "STARTING", message, UNAVAILABLE_RETRY_MS)
    caller = ledger.find(secret.strip()) if scheme.lower() == "bearer" else None
    if caller is None:
        message = "expected metadata 'authorization: Bearer KEY' with a valid key"
        await abort(context, grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID", message)
    if not caller.may(permission):
        message = f"key {caller.key_id} lacks the permission {permission.name}"
        await abort(context, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING", message)
    return caller
