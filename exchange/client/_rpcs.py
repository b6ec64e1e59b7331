"""The calls of the protocol as typed values, so that one code path makes them all."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from exchange.v1 import account_pb2, admin_pb2, market_data_pb2, trading_pb2

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


@dataclass(frozen=True, slots=True, eq=False)
class Rpc(Generic[RequestT, ResponseT]):
    service: str
    name: str
    request: type[RequestT]
    response: type[ResponseT]

    @property
    def path(self) -> str:
        return f"/exchange.v1.{self.service}/{self.name}"


_TRADING = "TradingService"
PLACE_ORDER = Rpc(_TRADING, "PlaceOrder", trading_pb2.PlaceOrderRequest, trading_pb2.PlaceOrderResponse)
PLACE_ORDERS = Rpc(_TRADING, "PlaceOrders", trading_pb2.PlaceOrdersRequest, trading_pb2.PlaceOrdersResponse)
AMEND_ORDER = Rpc(_TRADING, "AmendOrder", trading_pb2.AmendOrderRequest, trading_pb2.AmendOrderResponse)
CANCEL_ORDER = Rpc(_TRADING, "CancelOrder", trading_pb2.CancelOrderRequest, trading_pb2.CancelOrderResponse)
CANCEL_ALL_ORDERS = Rpc(
    _TRADING,
    "CancelAllOrders",
    trading_pb2.CancelAllOrdersRequest,
    trading_pb2.CancelAllOrdersResponse,
)
CANCEL_ALL_AFTER = Rpc(
    _TRADING,
    "CancelAllAfter",
    trading_pb2.CancelAllAfterRequest,
    trading_pb2.CancelAllAfterResponse,
)
GET_ORDER = Rpc(_TRADING, "GetOrder", trading_pb2.GetOrderRequest, trading_pb2.GetOrderResponse)
LIST_ORDERS = Rpc(_TRADING, "ListOrders", trading_pb2.ListOrdersRequest, trading_pb2.ListOrdersResponse)
TRADE = Rpc(_TRADING, "Trade", trading_pb2.TradeRequest, trading_pb2.TradeResponse)
STREAM_EXECUTIONS = Rpc(
    _TRADING,
    "StreamExecutions",
    trading_pb2.StreamExecutionsRequest,
    trading_pb2.StreamExecutionsResponse,
)

_MARKET_DATA = "MarketDataService"
LIST_INSTRUMENTS = Rpc(
    _MARKET_DATA,
    "ListInstruments",
    market_data_pb2.ListInstrumentsRequest,
    market_data_pb2.ListInstrumentsResponse,
)
GET_ORDER_BOOK = Rpc(
    _MARKET_DATA,
    "GetOrderBook",
    market_data_pb2.GetOrderBookRequest,
    market_data_pb2.GetOrderBookResponse,
)
LIST_TRADES = Rpc(_MARKET_DATA, "ListTrades", market_data_pb2.ListTradesRequest, market_data_pb2.ListTradesResponse)
GET_TICKER = Rpc(_MARKET_DATA, "GetTicker", market_data_pb2.GetTickerRequest, market_data_pb2.GetTickerResponse)
LIST_CANDLES = Rpc(
    _MARKET_DATA,
    "ListCandles",
    market_data_pb2.ListCandlesRequest,
    market_data_pb2.ListCandlesResponse,
)
STREAM_ORDER_BOOK = Rpc(
    _MARKET_DATA,
    "StreamOrderBook",
    market_data_pb2.StreamOrderBookRequest,
    market_data_pb2.StreamOrderBookResponse,
)
STREAM_TRADES = Rpc(
    _MARKET_DATA,
    "StreamTrades",
    market_data_pb2.StreamTradesRequest,
    market_data_pb2.StreamTradesResponse,
)
STREAM_TICKER = Rpc(
    _MARKET_DATA,
    "StreamTicker",
    market_data_pb2.StreamTickerRequest,
    market_data_pb2.StreamTickerResponse,
)

_ACCOUNT = "AccountService"
LIST_ASSETS = Rpc(_ACCOUNT, "ListAssets", account_pb2.ListAssetsRequest, account_pb2.ListAssetsResponse)
GET_BALANCES = Rpc(_ACCOUNT, "GetBalances", account_pb2.GetBalancesRequest, account_pb2.GetBalancesResponse)
LIST_LEDGER_ENTRIES = Rpc(
    _ACCOUNT,
    "ListLedgerEntries",
    account_pb2.ListLedgerEntriesRequest,
    account_pb2.ListLedgerEntriesResponse,
)
STREAM_BALANCES = Rpc(
    _ACCOUNT,
    "StreamBalances",
    account_pb2.StreamBalancesRequest,
    account_pb2.StreamBalancesResponse,
)
GET_FEES = Rpc(_ACCOUNT, "GetFees", account_pb2.GetFeesRequest, account_pb2.GetFeesResponse)
TRANSFER = Rpc(_ACCOUNT, "Transfer", account_pb2.TransferRequest, account_pb2.TransferResponse)

_ADMIN = "AdminService"
CREATE_INSTRUMENT = Rpc(
    _ADMIN,
    "CreateInstrument",
    admin_pb2.CreateInstrumentRequest,
    admin_pb2.CreateInstrumentResponse,
)
CREATE_ACCOUNT = Rpc(_ADMIN, "CreateAccount", admin_pb2.CreateAccountRequest, admin_pb2.CreateAccountResponse)
SET_ACCOUNT_TIER = Rpc(_ADMIN, "SetAccountTier", admin_pb2.SetAccountTierRequest, admin_pb2.SetAccountTierResponse)
LIST_ACCOUNTS = Rpc(_ADMIN, "ListAccounts", admin_pb2.ListAccountsRequest, admin_pb2.ListAccountsResponse)
CREATE_API_KEY = Rpc(_ADMIN, "CreateApiKey", admin_pb2.CreateApiKeyRequest, admin_pb2.CreateApiKeyResponse)
LIST_API_KEYS = Rpc(_ADMIN, "ListApiKeys", admin_pb2.ListApiKeysRequest, admin_pb2.ListApiKeysResponse)
REVOKE_API_KEY = Rpc(_ADMIN, "RevokeApiKey", admin_pb2.RevokeApiKeyRequest, admin_pb2.RevokeApiKeyResponse)
CREATE_ASSET = Rpc(_ADMIN, "CreateAsset", admin_pb2.CreateAssetRequest, admin_pb2.CreateAssetResponse)
DEPOSIT = Rpc(_ADMIN, "Deposit", admin_pb2.DepositRequest, admin_pb2.DepositResponse)
WITHDRAW = Rpc(_ADMIN, "Withdraw", admin_pb2.WithdrawRequest, admin_pb2.WithdrawResponse)
SET_STAGE = Rpc(_ADMIN, "SetStage", admin_pb2.SetStageRequest, admin_pb2.SetStageResponse)
UNPARK = Rpc(_ADMIN, "Unpark", admin_pb2.UnparkRequest, admin_pb2.UnparkResponse)
AUDIT = Rpc(_ADMIN, "Audit", admin_pb2.AuditRequest, admin_pb2.AuditResponse)
LIST_EVENTS = Rpc(_ADMIN, "ListEvents", admin_pb2.ListEventsRequest, admin_pb2.ListEventsResponse)
START_MAINTENANCE = Rpc(
    _ADMIN,
    "StartMaintenance",
    admin_pb2.StartMaintenanceRequest,
    admin_pb2.StartMaintenanceResponse,
)
GET_MAINTENANCE = Rpc(_ADMIN, "GetMaintenance", admin_pb2.GetMaintenanceRequest, admin_pb2.GetMaintenanceResponse)
GET_SETTINGS = Rpc(_ADMIN, "GetSettings", admin_pb2.GetSettingsRequest, admin_pb2.GetSettingsResponse)
LIST_SETTINGS = Rpc(_ADMIN, "ListSettings", admin_pb2.ListSettingsRequest, admin_pb2.ListSettingsResponse)
APPLY_SETTINGS = Rpc(_ADMIN, "ApplySettings", admin_pb2.ApplySettingsRequest, admin_pb2.ApplySettingsResponse)
REVERT_SETTINGS = Rpc(_ADMIN, "RevertSettings", admin_pb2.RevertSettingsRequest, admin_pb2.RevertSettingsResponse)
GET_STATUS = Rpc(_ADMIN, "GetStatus", admin_pb2.GetStatusRequest, admin_pb2.GetStatusResponse)
