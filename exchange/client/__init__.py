"""The Python SDK of Evenkeel: trade, read market data, move money, and operate an exchange.

    from decimal import Decimal
    from exchange.client import AsyncClient, Side

    async with AsyncClient("localhost:50051", api_key) as client:
        result = await client.place_order(
            "BTC-USDT", Side.BUY, quantity=Decimal("0.5"), price=Decimal("60000.10")
        )
        if result.rejected:
            print(result.reject_reason.name)

`Client` is the same without `async` and `await`. Prices, quantities and amounts are Decimal (int and str
are taken too, float never); each call has one deadline over all its attempts; `EvenkeelError` is the root
of all errors, and `NotExecuted`, `OutcomeUnknown` say what an error means for a command.
"""

from exchange.client._accounts import (
    Asset,
    Balance,
    BalanceChange,
    Balances,
    BalanceUpdate,
    EntryResult,
    Fee,
    LedgerEntry,
    new_reference,
)
from exchange.client._async_client import AsyncClient
from exchange.client._audit import Audit, AuditBreak, AuditedAsset, AuditedMachine
from exchange.client._book import Level, Levels, OrderBook, RawLevel
from exchange.client._call import Statistics
from exchange.client._client import BlockingStream, BlockingTradeSession, Client
from exchange.client._commands import (
    AmendOrder,
    CancelAllOrders,
    CancelOrder,
    Command,
    PlaceOrder,
    new_client_order_id,
)
from exchange.client._enums import (
    AccountTier,
    BalanceChangeReason,
    CandleInterval,
    CloseReason,
    ComponentState,
    EntryType,
    ExecutionType,
    Liquidity,
    MaintenanceAction,
    MaintenanceKind,
    MaintenanceState,
    OrderStatus,
    OrderType,
    Outcome,
    Permission,
    RejectReason,
    Role,
    RolloutState,
    SelfTradePrevention,
    Side,
    Stage,
    StageAction,
    TimeInForce,
)
from exchange.client._environment import Environment
from exchange.client._errors import (
    AlreadyExists,
    ChecksumMismatch,
    ClientClosed,
    DeadlineExceeded,
    EvenkeelError,
    GapDetected,
    InsufficientFunds,
    InvalidArgument,
    InvalidNumber,
    NotExecuted,
    NotFound,
    OrderRejected,
    OutcomeUnknown,
    Overloaded,
    PermissionDenied,
    StageForbids,
    TimedOut,
    TransportError,
    Unauthenticated,
    Unavailable,
    UnknownInstrument,
)
from exchange.client._instruments import Instrument
from exchange.client._maintenance import Maintenance, MaintenanceStatus, MaintenanceStep
from exchange.client._market_data import Candle, Ticker, Trade
from exchange.client._numbers import Number
from exchange.client._operation import (
    Account,
    ApiKey,
    ClassLoad,
    Component,
    Event,
    ExchangeStatus,
    GatewayLoad,
    InstrumentStage,
    LinkLoad,
    MachineLoad,
    NewApiKey,
)
from exchange.client._results import (
    CancelAllResult,
    DeadMansSwitch,
    Execution,
    Order,
    OrderResult,
)
from exchange.client._retry import RetryBudget, RetryPolicy
from exchange.client._session import TradeSession
from exchange.client._settings import SettingChange, SettingsStatus, SettingsVersion
from exchange.client._streams import Stream

__all__ = [
    "Account",
    "AccountTier",
    "AlreadyExists",
    "AmendOrder",
    "ApiKey",
    "Asset",
    "AsyncClient",
    "Audit",
    "AuditBreak",
    "AuditedAsset",
    "AuditedMachine",
    "Balance",
    "BalanceChange",
    "BalanceChangeReason",
    "BalanceUpdate",
    "Balances",
    "BlockingStream",
    "BlockingTradeSession",
    "CancelAllOrders",
    "CancelAllResult",
    "CancelOrder",
    "Candle",
    "CandleInterval",
    "ChecksumMismatch",
    "ClassLoad",
    "Client",
    "ClientClosed",
    "CloseReason",
    "Command",
    "Component",
    "ComponentState",
    "DeadMansSwitch",
    "DeadlineExceeded",
    "EntryResult",
    "EntryType",
    "Environment",
    "EvenkeelError",
    "Event",
    "ExchangeStatus",
    "Execution",
    "ExecutionType",
    "Fee",
    "GapDetected",
    "GatewayLoad",
    "Instrument",
    "InstrumentStage",
    "InsufficientFunds",
    "InvalidArgument",
    "InvalidNumber",
    "LedgerEntry",
    "Level",
    "Levels",
    "LinkLoad",
    "Liquidity",
    "MachineLoad",
    "Maintenance",
    "MaintenanceAction",
    "MaintenanceKind",
    "MaintenanceState",
    "MaintenanceStatus",
    "MaintenanceStep",
    "NewApiKey",
    "NotExecuted",
    "NotFound",
    "Number",
    "Order",
    "OrderBook",
    "OrderRejected",
    "OrderResult",
    "OrderStatus",
    "OrderType",
    "Outcome",
    "OutcomeUnknown",
    "Overloaded",
    "Permission",
    "PermissionDenied",
    "PlaceOrder",
    "RawLevel",
    "RejectReason",
    "RetryBudget",
    "RetryPolicy",
    "Role",
    "RolloutState",
    "SelfTradePrevention",
    "SettingChange",
    "SettingsStatus",
    "SettingsVersion",
    "Side",
    "Stage",
    "StageAction",
    "StageForbids",
    "Statistics",
    "Stream",
    "Ticker",
    "TimeInForce",
    "TimedOut",
    "Trade",
    "TradeSession",
    "TransportError",
    "Unauthenticated",
    "Unavailable",
    "UnknownInstrument",
    "new_client_order_id",
    "new_reference",
]
