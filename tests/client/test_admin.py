from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from exchange.client import (
    Account,
    AsyncClient,
    AuditedMachine,
    ComponentState,
    InvalidArgument,
    MaintenanceAction,
    MaintenanceKind,
    MaintenanceState,
    NotExecuted,
    NotFound,
    OutcomeUnknown,
    Permission,
    Role,
    RolloutState,
    SettingChange,
    Stage,
    TransportError,
)
from exchange.v1 import admin_pb2, types_pb2
from tests.client.fake_gateway import BTC, LOST, FakeGateway, Refusal


async def test_an_instrument_takes_its_scales_from_tick_and_lot(client: AsyncClient, gateway: FakeGateway) -> None:
    def create(request: Any) -> Message:
        return admin_pb2.CreateInstrumentResponse(instrument=request.instrument)

    gateway.script("CreateInstrument", create)
    instrument = await client.create_instrument(
        "BTC-USDT",
        tick_size=Decimal("0.05"),
        lot_size="0.0010",
        max_quantity=1000,
        reference_price=60000,
    )
    (request,) = gateway.requests["CreateInstrument"]
    assert request.instrument == types_pb2.Instrument(
        symbol="BTC-USDT",
        base_asset="BTC",
        quote_asset="USDT",
        price_scale=2,
        quantity_scale=3,
        tick_size=5,
        lot_size=1,
        min_quantity=1,
        max_quantity=1_000_000,
        reference_price=6_000_000,
    )
    assert instrument.tick_size == Decimal("0.05")
    assert instrument.round_price(Decimal("60000.12")) == Decimal("60000.10")
    assert instrument.round_quantity(Decimal("0.00149")) == Decimal("0.001")


async def test_an_instrument_may_name_its_assets_and_leave_out_the_largest_order(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    gateway.script(
        "CreateInstrument", lambda request: admin_pb2.CreateInstrumentResponse(instrument=request.instrument)
    )
    await client.create_instrument("BTCUSD", base_asset="BTC", quote_asset="USD", tick_size=1, lot_size=1)
    message = gateway.requests["CreateInstrument"][0].instrument
    assert (message.base_asset, message.quote_asset, message.max_quantity) == ("BTC", "USD", 0)
    assert not message.HasField("quote_scale"), "the exchange takes it from the asset"
    assert not message.HasField("base_scale"), "the exchange takes it from the asset"


async def test_an_instrument_of_an_asset_that_does_not_exist_is_not_found(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    gateway.script("CreateInstrument", Refusal(grpc.StatusCode.NOT_FOUND, "ASSET_UNKNOWN"))
    with pytest.raises(NotFound) as caught:
        await client.create_instrument("BTC-USDT", tick_size=1, lot_size=1)
    assert caught.value.reason_name == "ASSET_UNKNOWN"


async def test_instruments_are_decimal(client: AsyncClient) -> None:
    (instrument,) = await client.instruments()
    assert instrument.symbol == BTC.symbol
    assert instrument.lot_size == Decimal("0.0010")
    assert instrument.stage is Stage.OPEN


@pytest.mark.parametrize("lost", [LOST, Refusal(grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN")], ids=["lost", "unknown"])
async def test_a_key_is_not_made_twice(client: AsyncClient, gateway: FakeGateway, lost: Refusal) -> None:
    gateway.script("CreateApiKey", lost)
    with pytest.raises(OutcomeUnknown):
        await client.create_api_key(1, [Permission.TRADE])
    assert len(gateway.requests["CreateApiKey"]) == 1


async def test_a_new_keys_secret_stays_out_of_logs(client: AsyncClient, gateway: FakeGateway) -> None:
    key = admin_pb2.ApiKey(key_id="k", account_id=1, permissions=[admin_pb2.PERMISSION_TRADE])
    gateway.script("CreateApiKey", admin_pb2.CreateApiKeyResponse(api_key=key, key="s3cret"))
    new = await client.create_api_key(1, [Permission.TRADE])
    assert new.secret == "s3cret"
    assert new.api_key.permissions == (Permission.TRADE,)
    assert "s3cret" not in repr(new)


async def test_a_key_can_end_and_be_for_some_addresses_only(client: AsyncClient, gateway: FakeGateway) -> None:
    def create(request: Any) -> Message:
        key = admin_pb2.ApiKey(key_id="k", expire_time_ns=request.expire_time_ns, allowed_ips=request.allowed_ips)
        return admin_pb2.CreateApiKeyResponse(api_key=key)

    gateway.script("CreateApiKey", create)
    moment = datetime(2027, 1, 31, tzinfo=UTC)
    new = await client.create_api_key(1, [Permission.READ], expire_time=moment, allowed_ips=["192.0.2.7", "10.0.0.0/8"])
    assert new.api_key.expire_time == moment
    assert new.api_key.allowed_ips == ("192.0.2.7", "10.0.0.0/8")
    endless = await client.create_api_key(1, [Permission.READ])
    assert endless.api_key.expire_time is None
    assert endless.api_key.allowed_ips == ()


async def test_one_address_is_not_taken_for_many(client: AsyncClient, gateway: FakeGateway) -> None:
    with pytest.raises(TypeError, match="expected a sequence of addresses, was one string"):
        await client.create_api_key(1, [Permission.READ], allowed_ips="10.0.0.1")
    assert gateway.requests["CreateApiKey"] == []


async def test_an_account_that_was_lost_is_asked_for_again(client: AsyncClient, gateway: FakeGateway) -> None:
    account = admin_pb2.Account(account_id=3, name="maker")
    gateway.script("CreateAccount", LOST, admin_pb2.CreateAccountResponse(account=account))
    assert await client.create_account("maker") == Account(3, "maker", 0)


async def test_accounts_and_keys_are_listed_over_pages(client: AsyncClient, gateway: FakeGateway) -> None:
    def accounts(request: Any) -> Message:
        start = int(request.page_token or 0)
        page = [admin_pb2.Account(account_id=start + i) for i in range(2)]
        return admin_pb2.ListAccountsResponse(accounts=page, next_page_token=str(start + 2))

    keys = admin_pb2.ListApiKeysResponse(api_keys=[admin_pb2.ApiKey(key_id="k")])
    gateway.script("ListAccounts", accounts)
    gateway.script("ListApiKeys", keys)
    assert [account.account_id async for account in client.list_accounts(limit=3)] == [0, 1, 2]
    assert [key.key_id async for key in client.list_api_keys(3)] == ["k"]
    assert gateway.requests["ListApiKeys"][0].account_id == 3


async def test_a_stage_is_held_with_its_rate_and_reason(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("SetStage", admin_pb2.SetStageResponse(names=["BTC-USDT"]))
    names = await client.hold_stage(Stage.LIMITED, instrument="BTC-USDT", orders_per_s=50, reason="drill")
    assert names == ("BTC-USDT",)
    assert gateway.requests["SetStage"] == [
        admin_pb2.SetStageRequest(
            action=admin_pb2.STAGE_ACTION_HOLD,
            instrument="BTC-USDT",
            stage=types_pb2.STAGE_LIMITED,
            orders_per_s=50,
            reason="drill",
        )
    ]


@pytest.mark.parametrize("at_once", [False, True])
async def test_what_is_held_is_let_go_and_a_stage_is_skipped(
    client: AsyncClient, gateway: FakeGateway, at_once: bool
) -> None:
    gateway.script("SetStage", *[admin_pb2.SetStageResponse(names=["shard-0"])] * 2)
    assert await client.resume(shard="shard-0", reason="solved", at_once=at_once) == ("shard-0",)
    assert await client.skip_stage(reason="calm", at_once=at_once) == ("shard-0",)
    stage = types_pb2.STAGE_OPEN if at_once else types_pb2.STAGE_UNSPECIFIED
    assert gateway.requests["SetStage"] == [
        admin_pb2.SetStageRequest(action=admin_pb2.STAGE_ACTION_RESUME, shard="shard-0", stage=stage, reason="solved"),
        admin_pb2.SetStageRequest(action=admin_pb2.STAGE_ACTION_SKIP, stage=stage, reason="calm"),
    ]


async def test_a_component_is_unparked(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("Unpark", admin_pb2.UnparkResponse())
    await client.unpark("gateway-0")
    assert gateway.requests["Unpark"] == [admin_pb2.UnparkRequest(component="gateway-0")]


async def test_the_status_names_every_component(client: AsyncClient, gateway: FakeGateway) -> None:
    component = admin_pb2.Component(name="shard-0", state=admin_pb2.COMPONENT_STATE_UP, instruments=["BTC-USDT"])
    supervisor = admin_pb2.Component(name="supervisor-1", role=admin_pb2.ROLE_STANDBY, node="node-2")
    response = admin_pb2.GetStatusResponse(components=[component], version="0.1.0", supervisors=[supervisor])
    gateway.script("GetStatus", response)
    status = await client.status()
    assert status.version == "0.1.0"
    (shard,) = status.components
    assert (shard.name, shard.state) == ("shard-0", ComponentState.UP)
    assert [(s.name, s.role, s.node) for s in status.supervisors] == [("supervisor-1", Role.STANDBY, "node-2")]


async def test_a_question_that_is_never_answered_has_no_outcome(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("GetStatus", LOST)
    with pytest.raises(TransportError):
        await client.status()
    assert len(gateway.requests["GetStatus"]) == 3


async def test_an_audit_comes_with_decimals_and_its_evidence(client: AsyncClient, gateway: FakeGateway) -> None:
    asset = admin_pb2.AuditedAsset(
        asset="USDT",
        supply="30.00",
        ledger="10.00",
        escrow=[admin_pb2.AuditedEscrow(shard="shard-0", amount="19.00")],
        under_way="0.50",
        difference="-0.50",
    )
    at = [admin_pb2.AuditedMachine(name="ledger", sequence=7, since_sequence=2)]
    found = admin_pb2.AuditBreak(
        rule="I3", kind="VANISHED", asset="USDT", account_ids=[5], shards=["shard-0"], expected="0.50", found="0.00"
    )
    response = admin_pb2.AuditResponse(
        complete=True, assets=[asset], accounts=3, orders=2, trades=1, machines=at, breaks=[found], notes=["n"]
    )
    gateway.script("Audit", response)
    audit = await client.audit()
    assert (audit.balanced, audit.complete, audit.unavailable, audit.notes) == (False, True, (), ("n",))
    assert (audit.accounts, audit.orders, audit.trades) == (3, 2, 1)
    (usdt,) = audit.assets
    assert usdt.escrow == {"shard-0": Decimal("19.00")}
    assert usdt.difference == Decimal("-0.50")
    assert audit.machines == (AuditedMachine("ledger", 7, 2),)
    (vanished,) = audit.breaks
    assert (vanished.rule, vanished.kind, vanished.account_ids, vanished.expected) == (
        "I3",
        "VANISHED",
        (5,),
        Decimal("0.50"),
    )


async def test_maintenance_is_asked_for_once_and_told_with_its_steps(client: AsyncClient, gateway: FakeGateway) -> None:
    step = admin_pb2.MaintenanceStep(action=2, component="shard-0", state=2)  # type: ignore[arg-type]
    begun = admin_pb2.Maintenance(kind=1, shard="shard-0", state=2, steps=[step])  # type: ignore[arg-type]
    gateway.script("StartMaintenance", LOST, admin_pb2.StartMaintenanceResponse(maintenance=begun))
    with pytest.raises(OutcomeUnknown):
        await client.start_maintenance(MaintenanceKind.RESTART, shard="shard-0")
    started = await client.start_maintenance(MaintenanceKind.RESTART, shard="shard-0", force=True)
    assert gateway.requests["StartMaintenance"][1].force
    assert [(s.action, s.component, s.state) for s in started.steps] == [
        (MaintenanceAction.HAND_OVER, "shard-0", MaintenanceState.RUNNING)
    ]
    gateway.script("GetMaintenance", admin_pb2.GetMaintenanceResponse(drained_nodes=["node-1"]))
    status = await client.maintenance()
    assert (status.newest, status.drained_nodes) == (None, ("node-1",))


async def test_refused_maintenance_says_why(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("StartMaintenance", Refusal(grpc.StatusCode.FAILED_PRECONDITION, "STANDBY_MISSING"))
    with pytest.raises(NotExecuted) as refused:
        await client.start_maintenance(MaintenanceKind.RESTART)
    assert refused.value.reason_name == "STANDBY_MISSING"


async def test_settings_are_applied_once_and_told_with_their_steps(client: AsyncClient, gateway: FakeGateway) -> None:
    change = admin_pb2.SettingChange(name="codel.target_ms", before="25", after="20")
    step = admin_pb2.RolloutStep(components=["gateway-0"])
    begun = admin_pb2.SettingsVersion(version=2, reason="calmer", state=1, steps=[step], changes=[change])  # type: ignore[arg-type]
    gateway.script("ApplySettings", LOST, admin_pb2.ApplySettingsResponse(version=begun))
    with pytest.raises(OutcomeUnknown):
        await client.apply_settings("", reason="calmer")
    version = await client.apply_settings("", reason="calmer", force=True)
    assert gateway.requests["ApplySettings"][1].force
    assert (version.version, version.state, version.steps) == (2, RolloutState.ROLLING, (("gateway-0",),))
    assert version.changes == (SettingChange("codel.target_ms", "25", "20"),)
    gateway.script("GetSettings", admin_pb2.GetSettingsResponse(applied=begun, newest=begun))
    assert (await client.settings()).newest == version
    gateway.script("ListSettings", admin_pb2.ListSettingsResponse(versions=[begun, begun]))
    assert await client.settings_history() == (version, version)


async def test_refused_settings_say_why(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("ApplySettings", Refusal(grpc.StatusCode.INVALID_ARGUMENT, "SETTINGS_INVALID"))
    with pytest.raises(InvalidArgument) as refused:
        await client.check_settings("x = 1")
    assert refused.value.reason_name == "SETTINGS_INVALID"
    assert gateway.requests["ApplySettings"][0].validate_only
    gateway.script("RevertSettings", Refusal(grpc.StatusCode.NOT_FOUND, "VERSION_UNKNOWN"))
    with pytest.raises(NotFound):
        await client.revert_settings(99, reason="a test")
