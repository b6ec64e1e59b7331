"""The money half of a client: what an account has, how it came and went, and moving it."""

from collections.abc import AsyncIterator, Mapping

from exchange.client._accounts import (
    Asset,
    Balances,
    BalanceUpdate,
    EntryResult,
    Fee,
    LedgerEntry,
    check_reference,
    new_reference,
)
from exchange.client._call import Caller, Effect
from exchange.client._numbers import Number, to_amount
from exchange.client._rpcs import GET_BALANCES, GET_FEES, LIST_ASSETS, LIST_LEDGER_ENTRIES, TRANSFER
from exchange.client._streams import Stream, Streams
from exchange.v1 import account_pb2


class AccountMethods:
    """Money of the account that the API key belongs to; an operator may name another one."""

    _caller: Caller
    _streams: Streams

    async def assets(self, *, timeout: float | None = None) -> list[Asset]:
        """All that accounts can hold."""
        response = await self._caller.call(LIST_ASSETS, account_pb2.ListAssetsRequest(), timeout=timeout)
        return [Asset.from_proto(message) for message in response.assets]

    async def balances(self, account_id: int = 0, *, timeout: float | None = None) -> Balances:
        """What the account has, in the ledger and in all markets: a sequence of `Balance`, by asset."""
        request = account_pb2.GetBalancesRequest(account_id=account_id)
        response = await self._caller.call(GET_BALANCES, request, timeout=timeout)
        return Balances.from_proto(response)

    async def ledger_entries(
        self,
        account_id: int = 0,
        asset: str = "",
        *,
        limit: int | None = None,
        page_size: int = 100,
        timeout: float | None = None,
    ) -> AsyncIterator[LedgerEntry]:
        """Deposits, withdrawals and transfers, newest first, page by page as they are read; at most
        `limit`. The ledger keeps the newest 1,000,000 of all accounts.

        `timeout` is for each page.
        """
        token, left = "", limit
        while left is None or left > 0:
            request = account_pb2.ListLedgerEntriesRequest(
                account_id=account_id,
                asset=asset,
                page_size=page_size if left is None else min(page_size, left),
                page_token=token,
            )
            response = await self._caller.call(LIST_LEDGER_ENTRIES, request, timeout=timeout)
            for message in response.entries[:left]:
                yield LedgerEntry.from_proto(message)
            token = response.next_page_token
            if not token:
                return
            if left is not None:
                left -= len(response.entries)

    async def fees(self, account_id: int = 0, *, timeout: float | None = None) -> list[Fee]:
        """What trading costs the account, by instrument."""
        request = account_pb2.GetFeesRequest(account_id=account_id)
        response = await self._caller.call(GET_FEES, request, timeout=timeout)
        return [Fee.from_proto(message) for message in response.fees]

    async def transfer(
        self,
        to_account_id: int,
        asset: str,
        amount: Number,
        *,
        reference: str | None = None,
        from_account_id: int = 0,
        timeout: float | None = None,
    ) -> EntryResult:
        """Money goes to another account, once for each `reference`; needs the transfer permission.

        `reference` is yours: 1 to 64 characters of [A-Za-z0-9_.:-], unique among the transfers of the
        account that pays; None: one is made up. `from_account_id`: that account; 0: the key's.

        Raises:
            InsufficientFunds: the account has less available.
            NotFound: no such account or asset (ACCOUNT_UNKNOWN, ASSET_UNKNOWN).
            AlreadyExists: the reference was used for something else (REFERENCE_REUSED).
            OutcomeUnknown: send it again with its `reference`.
        """
        if reference is None:
            reference = new_reference()
        request = account_pb2.TransferRequest(
            from_account_id=from_account_id,
            to_account_id=to_account_id,
            asset=asset,
            amount=to_amount(amount, "amount"),
            reference=check_reference(reference),
        )
        response = await self._caller.call(TRANSFER, request, effect=Effect.SAME, reference=reference, timeout=timeout)
        return EntryResult.from_proto(response)

    def stream_balances(self, account_id: int = 0, after: Mapping[str, int] | None = None) -> Stream[BalanceUpdate]:
        """The balances as they are, and then each change of them: deposits, withdrawals and transfers, and
        what trades bring and cost, in every market.

        Each change comes once, whatever becomes of the connection, and balances and changes add up to what
        `balances()` says later. `after` goes on where an earlier stream or `balances()` was: its last
        `sequences`. Then the balances as they are do not come first.

        Raises (while it is read):
            GapDetected: what happened since is no longer held. Ask `balances()`, and go on after their
                `sequences`.
        """
        return self._streams.balances(account_id, after)
