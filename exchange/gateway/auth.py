"""Who calls: API keys, from the gateway's copy of the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote

import grpc

from exchange.engine.ledger_words import Permission
from exchange.gateway.errors import abort, abort_as_starting
from exchange.gateway.ledger import LedgerReplica


class Caller(NamedTuple):
    """The owner of a key, and what the key may do."""

    account: int
    key_id: str
    permissions: tuple[int, ...]

    def may(self, permission: Permission) -> bool:
        return int(permission) in self.permissions


def hash_of_key(secret: str) -> str:
    """Return what is stored of a key. A plain hash will do, since a key is 256 random bits."""
    return sha256(secret.encode()).hexdigest()


async def authenticate(context: Any, ledger: LedgerReplica, permission: Permission) -> Caller:
    """Return who calls; end the call with UNAUTHENTICATED or PERMISSION_DENIED if the key will not do."""
    given = next((value for name, value in context.invocation_metadata() or () if name == "authorization"), "")
    scheme, _, secret = given.partition(" ")
    if not ledger.is_loaded:
        await abort_as_starting(context, "the gateway does not know the keys yet")
    key = ledger.key_with_hash(hash_of_key(secret.strip())) if scheme.lower() == "bearer" else None
    if key is None:
        message = "expected metadata 'authorization: Bearer KEY' with a valid key"
        await abort(context, grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID", message)
    fault = ledger.fault_of(key)
    if fault:
        await _end_for(context, key.key_id, fault)
    if key.allowed_ips and not _is_allowed(context.peer(), key.allowed_ips):
        message = f"key {key.key_id} may not be used from {context.peer()}"
        await abort(context, grpc.StatusCode.PERMISSION_DENIED, "ADDRESS_NOT_ALLOWED", message)
    caller = Caller(key.account, key.key_id, key.permissions)
    if not caller.may(permission):
        message = f"key {caller.key_id} lacks the permission {permission.name}"
        await abort(context, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING", message)
    return caller


async def account_of(context: Any, caller: Caller, account: int) -> int:
    """Return the account that a request means, 0 being the caller's own; another one is for operators alone."""
    if account and account != caller.account and not caller.may(Permission.OPERATOR):
        message = f"key {caller.key_id} may not see or move what another account has"
        await abort(context, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING", message)
    return account or caller.account


@asynccontextmanager
async def while_valid(
    context: Any, ledger: LedgerReplica, caller: Caller
) -> AsyncIterator[Callable[[Any], Awaitable[None]]]:
    """End the stream that runs within with UNAUTHENTICATED as soon as its key is revoked or expires.

    Gives the function to write messages with: gRPC can send no status while a message is on its way, so that a stream
    whose reader is slow ends after that message.
    """
    task = asyncio.current_task()
    assert task is not None
    fault = ""
    is_writing = False

    def end(reason: str) -> None:
        nonlocal fault
        fault = reason
        if not is_writing:
            task.cancel()

    async def write(message: Any) -> None:
        nonlocal is_writing
        is_writing = True
        try:
            await context.write(message)
        finally:
            is_writing = False
        if fault:
            raise asyncio.CancelledError

    unwatch = ledger.watch(caller.key_id, end)
    try:
        yield write
    except asyncio.CancelledError:
        if not fault:
            raise
        task.uncancel()
        await _end_for(context, caller.key_id, fault)
    finally:
        unwatch()


async def _end_for(context: Any, key_id: str, fault: str) -> NoReturn:
    message = f"key {key_id} can no longer be used: {fault}"
    await abort(context, grpc.StatusCode.UNAUTHENTICATED, fault, message)


def _is_allowed(peer: str, allowed_ips: tuple[str, ...]) -> bool:
    """Whether a peer as gRPC names it, such as "ipv4:192.0.2.7:5000" or "ipv6:%5B::1%5D:5000", is in a network."""
    host = unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]")
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return any(address.ipv4_mapped in network for network in _networks(allowed_ips))
    return any(address in network for network in _networks(allowed_ips))


@lru_cache(maxsize=10_000)
def _networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text, strict=False) for text in texts)
