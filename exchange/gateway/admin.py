"""AdminService: accounts and keys go to the ledger, the rest to the supervisor."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, Protocol

import grpc

from exchange.engine.control import ControlResult
from exchange.engine.instrument import Instrument, InstrumentInvalid
from exchange.engine.ledger_words import (
    ApiKey,
    CreateAccount,
    CreateApiKey,
    CreateAsset,
    Deposit,
    Permission,
    RevokeApiKey,
    SetTier,
    Withdraw,
)
from exchange.engine.words import RejectReason
from exchange.gateway.account import encode_result, read_amount
from exchange.gateway.auth import authenticate, hash_of_key
from exchange.gateway.errors import UNAVAILABLE_RETRY_MS, abort
from exchange.gateway.ledger import LedgerClient
from exchange.runtime.peers import PeerUnavailable
from exchange.v1 import account_pb2, admin_pb2, admin_pb2_grpc, types_pb2

PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX = 100, 1_000
REASON_LENGTH_MAX = 200
_FIELDS = Instrument._fields
_SETTINGS_CODES = {
    "SETTINGS_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "VERSION_UNKNOWN": grpc.StatusCode.NOT_FOUND,
}


class Supervisor(Protocol):
    """What the gateway asks of the supervisor; raises `PeerUnavailable` while it is away."""

    async def create_instrument(self, instrument: Instrument, shard: str) -> ControlResult: ...

    async def set_stage(self, request: bytes) -> tuple[str, str, list[str]]:
        """Do what a SetStageRequest, serialised, asks for; return (reason, message) why not, and what to."""
        ...

    async def unpark(self, name: str) -> tuple[str, str]:
        """Start a component again that was parked; else return why not, as (reason, message)."""
        ...

    async def status(self) -> bytes:
        """Return a GetStatusResponse, serialised."""
        ...

    async def events(self, after_sequence: int) -> bytes:
        """Return a ListEventsResponse, serialised."""
        ...

    async def start_maintenance(self, request: bytes) -> tuple[str, str]:
        """Begin what a StartMaintenanceRequest, serialised, asks for; else return why not, as (reason, message)."""
        ...

    async def maintenance(self) -> bytes:
        """Return a GetMaintenanceResponse, serialised."""
        ...

    async def apply_settings(self, request: bytes, key_id: str) -> tuple[str, str, bytes]:
        """Begin what an ApplySettingsRequest, serialised, asks for; return why not, ("", "") if it has begun, as
        (reason, message), and an ApplySettingsResponse, serialised.
        """
        ...

    async def revert_settings(self, request: bytes, key_id: str) -> tuple[str, str, bytes]:
        """As `apply_settings`, of a RevertSettingsRequest."""
        ...

    async def settings(self) -> bytes:
        """Return a GetSettingsResponse, serialised."""
        ...

    async def settings_history(self) -> bytes:
        """Return a ListSettingsResponse, serialised."""
        ...

    async def audit(self) -> bytes:
        """Audit now; return an AuditResponse, serialised."""
        ...


def new_api_key() -> tuple[str, str]:
    """Return the id of a new key, and the key itself: 256 random bits behind the id."""
    key_id = f"k{secrets.token_hex(6)}"
    return key_id, f"ek_{key_id}_{secrets.token_urlsafe(32)}"


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """`is_known` tells whether this gateway has seen an instrument: an answer waits for that."""

    def __init__(self, supervisor: Supervisor, ledger: LedgerClient, is_known: Callable[[str], bool]) -> None:
        self._supervisor = supervisor
        self._client = ledger
        self._ledger = ledger.replica
        self._is_known = is_known

    async def CreateInstrument(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        message = request.instrument
        defaults = Instrument("", "", "", 0, 0, 0)
        fields = {name: getattr(message, name) for name in _FIELDS}
        for name in ("tick_size", "lot_size", "min_quantity", "max_quantity", "max_open_orders"):
            fields[name] = fields[name] or getattr(defaults, name)
        for field, symbol in (("base_scale", message.base_asset), ("quote_scale", message.quote_asset)):
            asset = self._ledger.assets.get(symbol)
            if asset is None:
                message_text = f"expected an asset that exists, was {symbol[:40]!r}: create it first"
                await abort(context, grpc.StatusCode.NOT_FOUND, "ASSET_UNKNOWN", message_text)
            if message.HasField(field) and getattr(message, field) != asset.scale:
                message_text = f"{field}: expected that of {symbol}, {asset.scale}, was {getattr(message, field)}"
                await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "INSTRUMENT_INVALID", message_text)
            fields[field] = asset.scale
        instrument = Instrument(**fields)
        try:
            instrument.check()
            result = await self._supervisor.create_instrument(instrument, message.shard)
        except InstrumentInvalid as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "INSTRUMENT_INVALID", str(error))
        except PeerUnavailable as error:
            await self._away(context, "supervisor", str(error))
        if result.reject_reason:
            reason = RejectReason(result.reject_reason)
            code = grpc.StatusCode.ALREADY_EXISTS
            if reason != RejectReason.INSTRUMENT_EXISTS:
                code = grpc.StatusCode.INVALID_ARGUMENT
            await abort(context, code, reason.name, f"{instrument.symbol}: {reason.name}")
        await _until(lambda: self._is_known(instrument.symbol))
        return admin_pb2.CreateInstrumentResponse(instrument=encode_instrument(instrument, result.shard))

    async def CreateAccount(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        result = await self._client.command(CreateAccount(request.name), context)
        return admin_pb2.CreateAccountResponse(account=_account(self._ledger.accounts[result.account]))

    async def SetAccountTier(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        await self._client.command(SetTier(request.account_id, request.tier), context)
        return admin_pb2.SetAccountTierResponse(account=_account(self._ledger.accounts[request.account_id]))

    async def ListAccounts(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        size, after = await _page(request, context)
        rows = [a for a in self._ledger.accounts.values() if a.account > after]
        token = str(rows[size - 1].account) if len(rows) > size else ""
        return admin_pb2.ListAccountsResponse(accounts=map(_account, rows[:size]), next_page_token=token)

    async def CreateApiKey(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        key_id, key = new_api_key()
        command = CreateApiKey(
            request.account_id,
            key_id,
            hash_of_key(key),
            tuple(request.permissions),
            request.expire_time_ns,
            tuple(request.allowed_ips),
        )
        await self._client.command(command, context)
        return admin_pb2.CreateApiKeyResponse(api_key=_api_key(self._ledger.api_keys[key_id]), key=key)

    async def ListApiKeys(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        size, after = await _page(request, context)
        wanted = request.account_id
        rows = [k for k in self._ledger.api_keys.values() if not wanted or k.account == wanted][after:]
        token = str(after + size) if len(rows) > size else ""
        return admin_pb2.ListApiKeysResponse(api_keys=map(_api_key, rows[:size]), next_page_token=token)

    async def RevokeApiKey(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        await self._client.command(RevokeApiKey(request.key_id), context)
        return admin_pb2.RevokeApiKeyResponse()

    async def CreateAsset(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        asset = request.asset
        await self._client.command(CreateAsset(asset.symbol, asset.scale), context)
        return admin_pb2.CreateAssetResponse(asset=account_pb2.Asset(symbol=asset.symbol, scale=asset.scale))

    async def Deposit(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        amount = await read_amount(request.asset, request.amount, self._ledger, context)
        command = Deposit(request.account_id, request.asset, amount, request.reference)
        entry, duplicate = encode_result(await self._client.command(command, context), self._ledger)
        return admin_pb2.DepositResponse(entry=entry, duplicate=duplicate)

    async def Withdraw(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        amount = await read_amount(request.asset, request.amount, self._ledger, context)
        command = Withdraw(request.account_id, request.asset, amount, request.reference)
        entry, duplicate = encode_result(await self._client.command(command, context), self._ledger)
        return admin_pb2.WithdrawResponse(entry=entry, duplicate=duplicate)

    async def SetStage(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        try:
            reason, message, names = await self._supervisor.set_stage(request.SerializeToString())
        except PeerUnavailable as error:
            await self._away(context, "supervisor", str(error))
        if reason:
            await abort(context, _code_of(reason), reason, message)
        return admin_pb2.SetStageResponse(names=names)

    async def Unpark(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        try:
            reason, message = await self._supervisor.unpark(request.component)
        except PeerUnavailable as error:
            await self._away(context, "supervisor", str(error))
        if reason:
            await abort(context, _code_of(reason), reason, message)
        return admin_pb2.UnparkResponse()

    async def GetStatus(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        try:
            return admin_pb2.GetStatusResponse.FromString(await self._supervisor.status())
        except PeerUnavailable as error:
            await self._away(context, "supervisor", str(error))

    async def ListEvents(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        try:
            events = await self._supervisor.events(request.after_sequence)
            return admin_pb2.ListEventsResponse.FromString(events)
        except PeerUnavailable as error:
            await self._away(context, "supervisor", str(error))

    async def StartMaintenance(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        if request.kind not in (
            admin_pb2.MAINTENANCE_KIND_RESTART,
            admin_pb2.MAINTENANCE_KIND_DRAIN,
            admin_pb2.MAINTENANCE_KIND_UNDRAIN,
        ):
            message = f"kind: expected RESTART, DRAIN or UNDRAIN, was {request.kind}"
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "MAINTENANCE_INVALID", message)
        if request.node and request.shard:
            message = f"expected a node or a shard, were both: {request.node[:40]!r}, {request.shard[:40]!r}"
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "MAINTENANCE_INVALID", message)
        try:
            reason, message = await self._supervisor.start_maintenance(request.SerializeToString())
            if reason:
                await abort(context, _code_of(reason), reason, message)
            begun = admin_pb2.GetMaintenanceResponse.FromString(await self._supervisor.maintenance())
        except PeerUnavailable as error:
            await self._away(context, "supervisor", str(error))
        return admin_pb2.StartMaintenanceResponse(maintenance=begun.maintenance)

    async def GetMaintenance(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        try:
            return admin_pb2.GetMaintenanceResponse.FromString(await self._supervisor.maintenance())
        except PeerUnavailable as error:
            await self._away(context, "supervisor", str(error))

    async def Audit(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        try:
            return admin_pb2.AuditResponse.FromString(await self._supervisor.audit())
        except PeerUnavailable as error:
            await self._away(context, "auditor", str(error))

    async def GetSettings(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        try:
            return admin_pb2.GetSettingsResponse.FromString(await self._supervisor.settings())
        except PeerUnavailable as error:
            await self._away(context, "supervisor", str(error))

    async def ListSettings(self, request: Any, context: Any) -> Any:
        await authenticate(context, self._ledger, Permission.OPERATOR)
        try:
            return admin_pb2.ListSettingsResponse.FromString(await self._supervisor.settings_history())
        except PeerUnavailable as error:
            await self._away(context, "supervisor", str(error))

    async def ApplySettings(self, request: Any, context: Any) -> Any:
        answer = await self._change_settings(self._supervisor.apply_settings, request, context, request.validate_only)
        return admin_pb2.ApplySettingsResponse.FromString(answer)

    async def RevertSettings(self, request: Any, context: Any) -> Any:
        answer = await self._change_settings(self._supervisor.revert_settings, request, context, False)
        return admin_pb2.RevertSettingsResponse.FromString(answer)

    async def _change_settings(
        self,
        change: Callable[[bytes, str], Awaitable[tuple[str, str, bytes]]],
        request: Any,
        context: Any,
        is_check: bool,
    ) -> bytes:
        caller = await authenticate(context, self._ledger, Permission.OPERATOR)
        if not is_check and not 1 <= len(request.reason) <= REASON_LENGTH_MAX:
            message = f"reason: expected 1 to {REASON_LENGTH_MAX} characters, were {len(request.reason)}"
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "REASON_INVALID", message)
        try:
            reason, message, response = await change(request.SerializeToString(), caller.key_id)
        except PeerUnavailable as error:
            await self._away(context, "supervisor", str(error))
        if reason:
            code = _SETTINGS_CODES.get(reason, grpc.StatusCode.FAILED_PRECONDITION)
            await abort(context, code, reason, message)
        return response

    async def _away(self, context: Any, who: str, detail: str) -> NoReturn:
        message = f"{who}: {detail}"
        await abort(context, grpc.StatusCode.UNAVAILABLE, f"{who.upper()}_UNAVAILABLE", message, UNAVAILABLE_RETRY_MS)


def _code_of(reason: str) -> grpc.StatusCode:
    """Return the gRPC code of a supervisor's refusal."""
    if reason.endswith("_UNKNOWN"):
        return grpc.StatusCode.NOT_FOUND
    if reason.endswith(("_INVALID", "_MISSING")):
        return grpc.StatusCode.INVALID_ARGUMENT
    return grpc.StatusCode.FAILED_PRECONDITION


def encode_instrument(
    instrument: Instrument, shard: str, stage: Mapping[str, Any] = MappingProxyType({})
) -> types_pb2.Instrument:
    """Return an instrument as the wire has it; `stage`: what is told of its stage, as fields of the message."""
    return types_pb2.Instrument(**instrument._asdict(), shard=shard, **stage)


async def _until(seen: Callable[[], bool], *, timeout_s: float = 2.0) -> None:
    """Wait until this gateway has seen what was just done, so that the caller's next call finds it."""
    async with asyncio.timeout(timeout_s):
        while not seen():  # noqa: ASYNC110  # what is waited for is a copy that a feed changes, not a task
            await asyncio.sleep(0.005)


async def _page(request: Any, context: Any) -> tuple[int, int]:
    size = request.page_size or PAGE_SIZE_DEFAULT
    token = request.page_token or "0"
    if size > PAGE_SIZE_MAX or not token.isdecimal():
        message = f"expected a page of at most {PAGE_SIZE_MAX} and a token from the page before"
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "PAGE_INVALID", message)
    return size, int(token)


def _account(account: Any) -> admin_pb2.Account:
    return admin_pb2.Account(
        account_id=account.account,
        name=account.name,
        create_time_ns=account.create_time_ns,
        tier=account.tier,
    )


def _api_key(key: ApiKey) -> admin_pb2.ApiKey:
    return admin_pb2.ApiKey(
        key_id=key.key_id,
        account_id=key.account,
        permissions=key.permissions,  # type: ignore[arg-type]
        create_time_ns=key.create_time_ns,
        revoked=key.revoked,
        expire_time_ns=key.expire_time_ns,
        allowed_ips=key.allowed_ips,
    )
