"""The operator's part of a client: needs a key with the operator permission."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from exchange.client._accounts import Asset, EntryResult, check_reference
from exchange.client._audit import Audit
from exchange.client._call import Caller, Effect
from exchange.client._enums import AccountTier, MaintenanceKind, Permission, Stage, StageAction
from exchange.client._instruments import Instrument
from exchange.client._maintenance import Maintenance, MaintenanceStatus
from exchange.client._numbers import Number, digits_after_point, to_amount, to_scaled, to_time_ns
from exchange.client._operation import Account, ApiKey, Event, ExchangeStatus, NewApiKey
from exchange.client._rpcs import (
    APPLY_SETTINGS,
    AUDIT,
    CREATE_ACCOUNT,
    CREATE_API_KEY,
    CREATE_ASSET,
    CREATE_INSTRUMENT,
    DEPOSIT,
    GET_MAINTENANCE,
    GET_SETTINGS,
    GET_STATUS,
    LIST_ACCOUNTS,
    LIST_API_KEYS,
    LIST_EVENTS,
    LIST_SETTINGS,
    REVERT_SETTINGS,
    REVOKE_API_KEY,
    SET_ACCOUNT_TIER,
    SET_STAGE,
    START_MAINTENANCE,
    UNPARK,
    WITHDRAW,
)
from exchange.client._settings import SettingsStatus, SettingsVersion
from exchange.v1 import account_pb2, admin_pb2, types_pb2


class AdminMethods:
    """Running the exchange."""

    _caller: Caller

    async def create_instrument(
        self,
        symbol: str,
        *,
        tick_size: Number,
        lot_size: Number,
        base_asset: str = "",
        quote_asset: str = "",
        min_quantity: Number | None = None,
        max_quantity: Number | None = None,
        price_scale: int | None = None,
        quantity_scale: int | None = None,
        band_bps: int = 0,
        reference_price: Number | None = None,
        maker_fee_ppm: int = 0,
        taker_fee_ppm: int = 0,
        max_open_orders: int = 0,
        shard: str = "",
        timeout: float | None = None,
    ) -> Instrument:
        """Opens a market; fields as in `Instrument`.

        Its assets must exist; they are the two parts of a symbol such as "BTC-USDT" unless they are given.
        The scales are the digits of the tick and of the lot unless they are given, the least quantity is one
        lot, and only the account's money limits the largest. Not sent again once its outcome is unknown:
        `instruments()` then tells.

        Raises:
            NotFound: an asset does not exist (ASSET_UNKNOWN): `create_asset` makes it.
        """
        base, _, quote = symbol.partition("-")
        if price_scale is None:
            price_scale = digits_after_point(tick_size, "tick_size")
        if quantity_scale is None:
            quantity_scale = digits_after_point(lot_size, "lot_size")
        if min_quantity is None:
            min_quantity = lot_size
        message = types_pb2.Instrument(
            symbol=symbol,
            base_asset=base_asset or base,
            quote_asset=quote_asset or quote,
            price_scale=price_scale,
            quantity_scale=quantity_scale,
            tick_size=to_scaled(tick_size, price_scale, "tick_size"),
            lot_size=to_scaled(lot_size, quantity_scale, "lot_size"),
            min_quantity=to_scaled(min_quantity, quantity_scale, "min_quantity"),
            max_quantity=(0 if max_quantity is None else to_scaled(max_quantity, quantity_scale, "max_quantity")),
            band_bps=band_bps,
            reference_price=(
                0 if reference_price is None else to_scaled(reference_price, price_scale, "reference_price")
            ),
            maker_fee_ppm=maker_fee_ppm,
            taker_fee_ppm=taker_fee_ppm,
            max_open_orders=max_open_orders,
            shard=shard,
        )
        response = await self._caller.call(
            CREATE_INSTRUMENT,
            admin_pb2.CreateInstrumentRequest(instrument=message),
            effect=Effect.AGAIN,
            timeout=timeout,
        )
        return Instrument.from_proto(response.instrument)

    async def create_account(self, name: str, *, timeout: float | None = None) -> Account:
        """A new account, or the one that has the name."""
        response = await self._caller.call(
            CREATE_ACCOUNT,
            admin_pb2.CreateAccountRequest(name=name),
            effect=Effect.SAME,
            timeout=timeout,
        )
        return Account.from_proto(response.account)

    async def set_account_tier(self, account_id: int, tier: AccountTier, *, timeout: float | None = None) -> Account:
        """Let an account send more, or less; gateways know it at once."""
        response = await self._caller.call(
            SET_ACCOUNT_TIER,
            admin_pb2.SetAccountTierRequest(account_id=account_id, tier=admin_pb2.AccountTier.ValueType(tier)),
            effect=Effect.SAME,
            timeout=timeout,
        )
        return Account.from_proto(response.account)

    async def list_accounts(
        self, *, limit: int | None = None, page_size: int = 100, timeout: float | None = None
    ) -> AsyncIterator[Account]:
        """All accounts, page by page as they are read; at most `limit`."""
        token, left = "", limit
        while left is None or left > 0:
            request = admin_pb2.ListAccountsRequest(page_size=page_size, page_token=token)
            response = await self._caller.call(LIST_ACCOUNTS, request, timeout=timeout)
            for message in response.accounts[:left]:
                yield Account.from_proto(message)
            token = response.next_page_token
            if not token:
                return
            if left is not None:
                left -= len(response.accounts)

    async def create_api_key(
        self,
        account_id: int,
        permissions: Sequence[Permission],
        *,
        expire_time: datetime | None = None,
        allowed_ips: Sequence[str] = (),
        timeout: float | None = None,
    ) -> NewApiKey:
        """A new key; its secret is shown this once.

        `expire_time` needs a time zone; None: it never ends. `allowed_ips` are the addresses and networks
        that calls may come from, such as "192.0.2.7" or "10.0.0.0/8"; none: from anywhere.

        Not sent again once its outcome is unknown, because that would make another key; revoke what
        `list_api_keys` then shows too many.
        """
        if isinstance(allowed_ips, str):
            # A sequence too, of one character each.
            raise TypeError(f"allowed_ips: expected a sequence of addresses, was one string {allowed_ips!r}")
        request = admin_pb2.CreateApiKeyRequest(
            account_id=account_id,
            permissions=[admin_pb2.Permission.ValueType(value) for value in permissions],
            expire_time_ns=0 if expire_time is None else to_time_ns(expire_time, "expire_time"),
            allowed_ips=allowed_ips,
        )
        response = await self._caller.call(CREATE_API_KEY, request, effect=Effect.AGAIN, timeout=timeout)
        return NewApiKey(ApiKey.from_proto(response.api_key), response.key)

    async def list_api_keys(
        self,
        account_id: int = 0,
        *,
        limit: int | None = None,
        page_size: int = 100,
        timeout: float | None = None,
    ) -> AsyncIterator[ApiKey]:
        """The keys of one account, or of all; page by page as they are read; at most `limit`."""
        token, left = "", limit
        while left is None or left > 0:
            request = admin_pb2.ListApiKeysRequest(account_id=account_id, page_size=page_size, page_token=token)
            response = await self._caller.call(LIST_API_KEYS, request, timeout=timeout)
            for message in response.api_keys[:left]:
                yield ApiKey.from_proto(message)
            token = response.next_page_token
            if not token:
                return
            if left is not None:
                left -= len(response.api_keys)

    async def revoke_api_key(self, key_id: str, *, timeout: float | None = None) -> None:
        """From now on the key is nobody's."""
        await self._caller.call(
            REVOKE_API_KEY,
            admin_pb2.RevokeApiKeyRequest(key_id=key_id),
            effect=Effect.SAME,
            timeout=timeout,
        )

    async def create_asset(self, symbol: str, scale: int, *, timeout: float | None = None) -> Asset:
        """A new asset that accounts can hold, with `scale` digits after the point, or the one that is there.

        Raises:
            AlreadyExists: it is there with another scale (ASSET_EXISTS).
        """
        response = await self._caller.call(
            CREATE_ASSET,
            admin_pb2.CreateAssetRequest(asset=account_pb2.Asset(symbol=symbol, scale=scale)),
            effect=Effect.SAME,
            timeout=timeout,
        )
        return Asset.from_proto(response.asset)

    async def deposit(
        self,
        account_id: int,
        asset: str,
        amount: Number,
        *,
        reference: str,
        timeout: float | None = None,
    ) -> EntryResult:
        """Money comes in, once for each `reference`, however often it is sent.

        `reference` is yours, such as the transaction that brought it: 1 to 64 characters of
        [A-Za-z0-9_.:-], unique among deposits.

        Raises:
            NotFound: no such account or asset (ACCOUNT_UNKNOWN, ASSET_UNKNOWN).
            AlreadyExists: the reference was used for something else (REFERENCE_REUSED).
            OutcomeUnknown: send it again with its `reference`.
        """
        request = admin_pb2.DepositRequest(
            account_id=account_id,
            asset=asset,
            amount=to_amount(amount, "amount"),
            reference=check_reference(reference),
        )
        response = await self._caller.call(DEPOSIT, request, effect=Effect.SAME, reference=reference, timeout=timeout)
        return EntryResult.from_proto(response)

    async def withdraw(
        self,
        account_id: int,
        asset: str,
        amount: Number,
        *,
        reference: str,
        timeout: float | None = None,
    ) -> EntryResult:
        """Money goes out, once for each `reference`; like `deposit`, but its references are its own.

        Raises:
            InsufficientFunds: the account has less available.
            NotFound, AlreadyExists, OutcomeUnknown: as `deposit`.
        """
        request = admin_pb2.WithdrawRequest(
            account_id=account_id,
            asset=asset,
            amount=to_amount(amount, "amount"),
            reference=check_reference(reference),
        )
        response = await self._caller.call(WITHDRAW, request, effect=Effect.SAME, reference=reference, timeout=timeout)
        return EntryResult.from_proto(response)

    async def hold_stage(
        self,
        stage: Stage,
        *,
        reason: str,
        instrument: str = "",
        shard: str = "",
        orders_per_s: int = 0,
        timeout: float | None = None,
    ) -> tuple[str, ...]:
        """Holds an instrument, a shard, or all of them if neither is named, at a stage through any restart.

        CANCEL_ONLY, POST_ONLY, LIMITED with `orders_per_s`, or HALTED, which lets no cancel through either. The
        `reason` is journaled and told to those who trade. Returns what is held.

        Raises:
            NotExecuted: STAGE_INVALID, REASON_MISSING.
            NotFound: SHARD_UNKNOWN, INSTRUMENT_UNKNOWN.
        """
        request = admin_pb2.SetStageRequest(
            action=admin_pb2.StageAction.ValueType(StageAction.HOLD),
            shard=shard,
            instrument=instrument,
            stage=types_pb2.Stage.ValueType(stage),
            orders_per_s=orders_per_s,
            reason=reason,
        )
        return await self._set_stage(request, timeout)

    async def resume(
        self, *, reason: str, instrument: str = "", shard: str = "", at_once: bool = False, timeout: float | None = None
    ) -> tuple[str, ...]:
        """Ends what `hold_stage`, or the auditor, holds; returns what was held.

        A shard goes on in stages from where it was held, or opens `at_once`. An instrument is as its shard is.

        Raises:
            NotExecuted: NOT_HELD, REASON_MISSING.
            NotFound: SHARD_UNKNOWN, INSTRUMENT_UNKNOWN.
        """
        request = admin_pb2.SetStageRequest(
            action=admin_pb2.StageAction.ValueType(StageAction.RESUME),
            shard=shard,
            instrument=instrument,
            stage=types_pb2.STAGE_OPEN if at_once else types_pb2.STAGE_UNSPECIFIED,
            reason=reason,
        )
        return await self._set_stage(request, timeout)

    async def skip_stage(
        self, *, reason: str, shard: str = "", at_once: bool = False, timeout: float | None = None
    ) -> tuple[str, ...]:
        """Has a shard that reopens, or all of them, go to the next stage now, or open `at_once`; returns which.

        Raises:
            NotExecuted: STAGE_OPEN if none is reopening, HELD, REASON_MISSING.
            NotFound: SHARD_UNKNOWN.
        """
        request = admin_pb2.SetStageRequest(
            action=admin_pb2.StageAction.ValueType(StageAction.SKIP),
            shard=shard,
            stage=types_pb2.STAGE_OPEN if at_once else types_pb2.STAGE_UNSPECIFIED,
            reason=reason,
        )
        return await self._set_stage(request, timeout, effect=Effect.AGAIN)

    async def _set_stage(
        self, request: admin_pb2.SetStageRequest, timeout: float | None, *, effect: Effect = Effect.SAME
    ) -> tuple[str, ...]:
        response = await self._caller.call(SET_STAGE, request, effect=effect, timeout=timeout)
        return tuple(response.names)

    async def unpark(self, component: str, *, timeout: float | None = None) -> None:
        """Starts a component again that was parked because it was lost too often.

        Raises:
            NotExecuted: NOT_PARKED.
            NotFound: COMPONENT_UNKNOWN.
        """
        request = admin_pb2.UnparkRequest(component=component)
        await self._caller.call(UNPARK, request, effect=Effect.SAME, timeout=timeout)

    async def status(self, *, timeout: float | None = None) -> ExchangeStatus:
        """What runs where, in which state."""
        response = await self._caller.call(GET_STATUS, admin_pb2.GetStatusRequest(), timeout=timeout)
        return ExchangeStatus.from_proto(response)

    async def events(self, *, after_sequence: int = 0, timeout: float | None = None) -> tuple[Event, ...]:
        """Returns what happened to the components since the supervisor became active, oldest first, 10,000 at most.

        Raises:
            Unavailable: the supervisor is away.
        """
        request = admin_pb2.ListEventsRequest(after_sequence=after_sequence)
        response = await self._caller.call(LIST_EVENTS, request, timeout=timeout)
        return tuple(Event.from_proto(event) for event in response.events)

    async def start_maintenance(
        self,
        kind: MaintenanceKind,
        *,
        node: str = "",
        shard: str = "",
        force: bool = False,
        timeout: float | None = None,
    ) -> Maintenance:
        """Begins to restart or to empty a node, a shard (or "ledger"), or everything if neither is named.

        Returns its steps when it has begun; `maintenance()` tells how far it is. Not sent again once its outcome is
        unknown.

        Raises:
            NotExecuted: it is refused: MAINTENANCE_UNDER_WAY, ONLY_NODE, and unless it is forced SHARD_NOT_OPEN,
                STANDBY_MISSING, NOT_READY, ONLY_GATEWAY or BUSY.
            NotFound: NODE_UNKNOWN, SHARD_UNKNOWN.
        """
        request = admin_pb2.StartMaintenanceRequest(
            kind=admin_pb2.MaintenanceKind.ValueType(kind), node=node, shard=shard, force=force
        )
        response = await self._caller.call(START_MAINTENANCE, request, effect=Effect.AGAIN, timeout=timeout)
        return Maintenance.from_proto(response.maintenance)

    async def maintenance(self, *, timeout: float | None = None) -> MaintenanceStatus:
        """How far maintenance is, or how the last one ended, and which nodes are drained."""
        response = await self._caller.call(GET_MAINTENANCE, admin_pb2.GetMaintenanceRequest(), timeout=timeout)
        return MaintenanceStatus.from_proto(response)

    async def settings(self, *, timeout: float | None = None) -> SettingsStatus:
        """The settings that hold, and what is being rolled out or was last."""
        response = await self._caller.call(GET_SETTINGS, admin_pb2.GetSettingsRequest(), timeout=timeout)
        return SettingsStatus.from_proto(response)

    async def settings_history(self, *, timeout: float | None = None) -> tuple[SettingsVersion, ...]:
        """The newest 100 versions of the settings, oldest first."""
        response = await self._caller.call(LIST_SETTINGS, admin_pb2.ListSettingsRequest(), timeout=timeout)
        return tuple(map(SettingsVersion.from_proto, response.versions))

    async def check_settings(self, toml: str, *, timeout: float | None = None) -> SettingsVersion:
        """What settings would change, and in which steps; nothing is done.

        Raises:
            InvalidArgument: what is wrong, value by value, with the range and the reason (SETTINGS_INVALID).
        """
        request = admin_pb2.ApplySettingsRequest(toml=toml, validate_only=True)
        response = await self._caller.call(APPLY_SETTINGS, request, timeout=timeout)
        return SettingsVersion.from_proto(response.version)

    async def apply_settings(
        self, toml: str, *, reason: str, force: bool = False, timeout: float | None = None
    ) -> SettingsVersion:
        """Begins to roll out settings: to one process, to half of those that they concern, to all.

        What `toml` does not name gets its default. Each step is watched, and all is taken back by itself if delays or
        refusals grow above the service levels, or a process is lost; `settings()` tells how far it is. `force`:
        everywhere at once and unwatched. Not sent again once its outcome is unknown.

        Raises:
            InvalidArgument: SETTINGS_INVALID, REASON_INVALID.
            NotExecuted: it is refused: ROLLOUT_UNDER_WAY, MAINTENANCE_UNDER_WAY, SETTINGS_UNCHANGED.
        """
        request = admin_pb2.ApplySettingsRequest(toml=toml, reason=reason, force=force)
        response = await self._caller.call(APPLY_SETTINGS, request, effect=Effect.AGAIN, timeout=timeout)
        return SettingsVersion.from_proto(response.version)

    async def revert_settings(
        self, version: int = 0, *, reason: str, force: bool = False, timeout: float | None = None
    ) -> SettingsVersion:
        """Takes back what is being rolled out, or rolls out an earlier version, as `apply_settings` does.

        0: what is being rolled out, else the last version that held before this one.

        Raises:
            NotFound: VERSION_UNKNOWN.
            NotExecuted: NOTHING_TO_REVERT, and as `apply_settings`.
        """
        request = admin_pb2.RevertSettingsRequest(version=version, reason=reason, force=force)
        response = await self._caller.call(REVERT_SETTINGS, request, effect=Effect.AGAIN, timeout=timeout)
        return SettingsVersion.from_proto(response.version)

    async def audit(self, *, timeout: float | None = None) -> Audit:
        """Has the books of ledger and shards audited now, while trading goes on.

        It may take seconds where there are many orders: give it a `timeout` of its own.

        Raises:
            Unavailable: the auditor or the supervisor is away. A shard or ledger that is away is in the answer.
        """
        response = await self._caller.call(AUDIT, admin_pb2.AuditRequest(), timeout=timeout)
        return Audit.from_proto(response)
