"""The operator's part of a client: needs a key with the operator permission."""

from collections.abc import AsyncIterator, Sequence

from exchange.client._call import Caller, Effect
from exchange.client._enums import Permission, Stage
from exchange.client._instruments import Instrument
from exchange.client._numbers import Number, digits_after_point, to_scaled
from exchange.client._operation import Account, ApiKey, ExchangeStatus, NewApiKey
from exchange.client._rpcs import (
    CREATE_ACCOUNT,
    CREATE_API_KEY,
    CREATE_INSTRUMENT,
    GET_STATUS,
    LIST_ACCOUNTS,
    LIST_API_KEYS,
    REVOKE_API_KEY,
    SET_STAGE,
)
from exchange.v1 import admin_pb2, types_pb2


class AdminMethods:
    """Running the exchange."""

    _caller: Caller

    async def create_instrument(
        self,
        symbol: str,
        *,
        base_asset: str,
        quote_asset: str,
        tick_size: Number,
        lot_size: Number,
        max_quantity: Number,
        quote_scale: int,
        min_quantity: Number | None = None,
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

        The scales are the digits of the tick and of the lot unless they are given, the least quantity
        is one lot. Not sent again once its outcome is unknown: `instruments()` then tells.
        """
        if price_scale is None:
            price_scale = digits_after_point(tick_size, "tick_size")
        if quantity_scale is None:
            quantity_scale = digits_after_point(lot_size, "lot_size")
        if min_quantity is None:
            min_quantity = lot_size
        message = types_pb2.Instrument(
            symbol=symbol,
            base_asset=base_asset,
            quote_asset=quote_asset,
            price_scale=price_scale,
            quantity_scale=quantity_scale,
            quote_scale=quote_scale,
            tick_size=to_scaled(tick_size, price_scale, "tick_size"),
            lot_size=to_scaled(lot_size, quantity_scale, "lot_size"),
            min_quantity=to_scaled(min_quantity, quantity_scale, "min_quantity"),
            max_quantity=to_scaled(max_quantity, quantity_scale, "max_quantity"),
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
        timeout: float | None = None,
    ) -> NewApiKey:
        """A new key; its secret is shown this once.

        Not sent again once its outcome is unknown, because that would make another key; revoke what
        `list_api_keys` then shows too many.
        """
        request = admin_pb2.CreateApiKeyRequest(
            account_id=account_id,
            permissions=[admin_pb2.Permission.ValueType(value) for value in permissions],
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

    async def set_stage(
        self,
        stage: Stage,
        *,
        shard: str = "",
        orders_per_s: int = 0,
        reason: str = "",
        timeout: float | None = None,
    ) -> tuple[str, ...]:
        """Sets what a shard (all, if none is named) lets through, and returns which ones it was set in.

        `orders_per_s` is for LIMITED; `reason` is kept in the journal.
        """
        request = admin_pb2.SetStageRequest(
            shard=shard,
            stage=types_pb2.Stage.ValueType(stage),
            orders_per_s=orders_per_s,
            reason=reason,
        )
        response = await self._caller.call(SET_STAGE, request, effect=Effect.SAME, timeout=timeout)
        return tuple(response.shards)

    async def status(self, *, timeout: float | None = None) -> ExchangeStatus:
        """What runs where, in which state."""
        response = await self._caller.call(GET_STATUS, admin_pb2.GetStatusRequest(), timeout=timeout)
        return ExchangeStatus.from_proto(response)
