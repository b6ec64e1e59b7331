"""The service as operators and the public reach it: gRPC, who is an operator, post-mortems, the command line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import msgspec
import pytest
from typer.testing import CliRunner

from exchange.cli import run as run_exchange
from exchange.client import EvenkeelError, TransportError, Unauthenticated
from exchange.v1 import status_pb2 as pb
from exchange.v1 import status_pb2_grpc
from status import operators
from status.cli import app
from status.grpc_service import PortTaken
from status.model import ComponentStatus
from status.operators import NotAnOperator, Operators, hash_of, remember
from status.postmortem import LoggedEvent, draft
from status.prepare import write_private
from status.service import StatusService
from status.settings import Exchange, IncidentRules, Serving, Settings, SettingsInvalid
from status.watch.looks import Kind, Result
from tests.status.observed import PLAN, SECOND, instrument, look
from tests.status.test_incidents import MAJOR, World

KEY = "operator-key"
OPERATOR = (("authorization", f"Bearer {KEY}"),)


class FakeExchange:
    """Stands for the exchange that is asked whose a key is."""

    error: EvenkeelError | None = None

    def __init__(self, addresses: object, key: str, **_: object) -> None:
        self.key = key

    async def __aenter__(self) -> FakeExchange:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return

    async def maintenance(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> type[FakeExchange]:
    monkeypatch.setattr(operators, "AsyncClient", FakeExchange)
    monkeypatch.setattr(FakeExchange, "error", None)
    return FakeExchange


@pytest.fixture
async def service(tmp_path: Path, exchange: type[FakeExchange]) -> AsyncIterator[StatusService]:
    """Watches an address where nobody is, and serves on a free port."""
    # Port 9 (discard) of this machine: nobody listens.
    where = Exchange(addresses=("127.0.0.1:9",))
    settings = Settings(
        data_dir=str(tmp_path),
        exchange=where,
        incidents=IncidentRules(blip_ms=500),
        serving=Serving(http_port=0, grpc_port=0),
    )
    write_private(settings.key_path("probe.key"), "probe")
    async with StatusService(settings) as service:
        yield service


@pytest.fixture
async def stub(service: StatusService) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc.port}") as channel:
        yield status_pb2_grpc.StatusServiceStub(channel)


async def test_the_board_stands_and_says_that_the_exchange_is_gone(service: StatusService, stub: Any) -> None:
    async with asyncio.timeout(30):
        async for response in stub.WatchStatus(pb.WatchStatusRequest()):
            if response.board.indicator == "critical":
                break
    found = {component.id: component.status for component in response.board.components}
    assert found["api-gateway-0"] == "major_outage"
    assert (await stub.GetBoard(pb.GetBoardRequest())).board.version >= response.board.version


async def test_page_and_api_are_served_and_written_as_files(service: StatusService, stub: Any, tmp_path: Path) -> None:
    async with asyncio.timeout(30):
        async for response in stub.WatchStatus(pb.WatchStatusRequest()):
            if response.board.indicator == "critical":
                break
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http_port}") as client:
        page = await client.get("/")
        summary = (await client.get("/api/v2/summary.json")).json()
    assert page.status_code == 200
    assert "unavailable" in page.text
    assert summary["status"]["indicator"] == "critical"
    async with asyncio.timeout(30):
        file = tmp_path / "snapshot" / "current" / "index.html"
        while not file.exists() or "unavailable" not in file.read_text():
            await asyncio.sleep(0.05)


async def test_a_port_that_is_taken_is_named(service: StatusService) -> None:
    taken = Serving(http_port=service.http_port, grpc_port=0)
    with pytest.raises(PortTaken, match=r"serving\.http_port"):
        async with StatusService(msgspec.structs.replace(service.settings, serving=taken)):
            pass


async def test_operators_announce_maintenance_and_put_notices_up(service: StatusService, stub: Any) -> None:
    now_ns = service.publisher.now_ns()
    request = pb.ScheduleMaintenanceRequest(
        name="New version",
        from_time_ns=now_ns + 60 * SECOND,
        until_time_ns=now_ns + 120 * SECOND,
        body="Short pauses.",
    )
    planned = (await stub.ScheduleMaintenance(request, metadata=OPERATOR)).maintenance
    notice = (await stub.PutNotice(pb.PutNoticeRequest(body="Hello."), metadata=OPERATOR)).notice
    board = (await stub.GetBoard(pb.GetBoardRequest())).board
    assert [m.id for m in board.maintenances] == [planned.id]
    assert [n.body for n in board.notices] == ["Hello."]
    await stub.AddIncidentUpdate(pb.AddIncidentUpdateRequest(id=planned.id, body="As planned."), metadata=OPERATOR)
    await stub.CancelMaintenance(pb.CancelMaintenanceRequest(id=planned.id, body="Not needed."), metadata=OPERATOR)
    await stub.RemoveNotice(pb.RemoveNoticeRequest(id=notice.id), metadata=OPERATOR)
    board = (await stub.GetBoard(pb.GetBoardRequest())).board
    assert [update.body for update in board.maintenances[0].updates] == ["Not needed.", "As planned.", "Short pauses."]
    assert not board.notices
    assert (await stub.ListDeadLetters(pb.ListDeadLettersRequest(), metadata=OPERATOR)).dead_letters == []


REFUSED: list[tuple[Any, Any, grpc.StatusCode]] = [
    (pb.PutNoticeRequest(body="Hello."), (), grpc.StatusCode.UNAUTHENTICATED),
    (pb.PutNoticeRequest(body="  "), OPERATOR, grpc.StatusCode.INVALID_ARGUMENT),
    (pb.CancelMaintenanceRequest(id="no-such", body="x"), OPERATOR, grpc.StatusCode.NOT_FOUND),
    (pb.CorrectUpdateRequest(update_id="no-such", body="x"), OPERATOR, grpc.StatusCode.NOT_FOUND),
    (pb.GetPostmortemDraftRequest(incident_id="no-such"), OPERATOR, grpc.StatusCode.NOT_FOUND),
    (pb.RemoveNoticeRequest(id="no-such"), OPERATOR, grpc.StatusCode.NOT_FOUND),
    (pb.ScheduleMaintenanceRequest(name="x", body="x"), OPERATOR, grpc.StatusCode.INVALID_ARGUMENT),
]


async def test_what_cannot_be_done_is_refused_with_a_code(stub: Any) -> None:
    for request, metadata, code in REFUSED:
        method = type(request).__name__.removesuffix("Request")
        with pytest.raises(grpc.aio.AioRpcError) as found:
            await getattr(stub, method)(request, metadata=metadata)
        assert found.value.code() is code, method
        assert "grpc-status-details-bin" in dict(found.value.trailing_metadata() or ())


async def test_an_operator_is_known_while_the_exchange_is_down_and_a_revoked_key_no_more(
    tmp_path: Path, exchange: type[FakeExchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "operators.sha256"
    checked = Operators(("127.0.0.1:9",), file)
    monkeypatch.setattr(exchange, "error", TransportError("gone"))
    with pytest.raises(NotAnOperator, match="cannot be asked now"):
        await checked.check(KEY)
    monkeypatch.setattr(exchange, "error", None)
    await checked.check(KEY)
    assert file.read_text() == f"{hash_of(KEY)}\n"
    monkeypatch.setattr(exchange, "error", TransportError("gone"))
    await checked.check(KEY)
    with pytest.raises(NotAnOperator):
        await checked.check("another")
    monkeypatch.setattr(exchange, "error", Unauthenticated("revoked", reason_name="KEY_REVOKED"))
    with pytest.raises(NotAnOperator):
        await checked.check(KEY)
    monkeypatch.setattr(exchange, "error", TransportError("gone"))
    with pytest.raises(NotAnOperator):
        await checked.check(KEY)


async def test_without_a_key_to_probe_with_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="evenkeel-status prepare"):
        async with StatusService(Settings(data_dir=str(tmp_path))):
            pass


def test_a_draft_has_the_times_of_the_event_log_and_marks_what_a_person_must_write() -> None:
    world = World()
    world.step(6, trading_btc_usdt=MAJOR)
    world.step(40, trading_btc_usdt=ComponentStatus.OPERATIONAL)
    incident = world.only()
    at_ns = incident.started_ns + SECOND // 4
    events = [
        LoggedEvent(at_ns, "lost", "shard-0", "pid 4711 died on 10.0.0.9"),
        LoggedEvent(at_ns, "stage", "shard-0", "CANCEL_ONLY: opening"),
        LoggedEvent(at_ns, "lost", "shard-1", ""),
    ]
    text = draft(incident, events, world.components().values(), PLAN)
    for heading in ("## Impact", "## Time line (UTC)", "## Cause", "## Resolution", "## Prevention"):
        assert heading in text
    assert ".250 The engine of BTC-USDT: was lost." in text
    assert "goes to CANCEL_ONLY" in text
    assert "ETH-USDT" not in text
    assert "[To be filled in" in text
    for internal in ("4711", "10.0.0.9"):
        assert internal not in text


async def test_a_draft_comes_over_grpc_and_is_published_once_all_is_over(service: StatusService, stub: Any) -> None:
    publisher = service.publisher
    publisher.hear_instruments([instrument("BTC-USDT", "shard-0")])
    async with asyncio.timeout(30):
        async for response in stub.WatchStatus(pb.WatchStatusRequest()):
            if response.board.incidents:
                break
    incident = response.board.incidents[0]
    request = pb.GetPostmortemDraftRequest(incident_id=incident.id)
    drafted = (await stub.GetPostmortemDraft(request, metadata=OPERATOR)).text
    assert incident.name in drafted
    with pytest.raises(grpc.aio.AioRpcError, match="expected a resolved incident"):
        await stub.PublishPostmortem(pb.PublishPostmortemRequest(incident_id=incident.id, text="x"), metadata=OPERATOR)


async def test_the_command_line_talks_to_the_service(
    service: StatusService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{service.grpc.port}"
    publisher = service.publisher
    for kind in (Kind.GATEWAY, Kind.ACCOUNT):
        publisher.see(look(kind, 0, Result.OK))

    async def exchange_status(*words: str) -> tuple[int, str]:
        code = await asyncio.to_thread(run_exchange, ["status", *words, "--service", address])
        # The service logs to the same place, above.
        return code, capsys.readouterr().out.strip()

    code, told = await exchange_status("notice", "put", "Hello.", "--key", KEY)
    assert code == 0
    code, shown = await exchange_status("show")
    assert "Hello." in shown
    assert code == 0
    assert (await exchange_status("notice", "remove", told.splitlines()[-1], "--key", KEY))[0] == 0
    window = ("--from", "2100-01-01T08:00Z", "--until", "2100-01-01T09:00Z", "--body", "Short pauses.")
    code, planned = await exchange_status("maintenance", "schedule", "New version", *window, "--key", KEY)
    assert code == 0
    assert planned.splitlines()[-1] in (await exchange_status("show"))[1]
    assert (await exchange_status("letters", "list", "--key", KEY))[0] == 0
    assert (await exchange_status("incident", "update", "no-such", "x", "--key", KEY))[0] == 1


def test_the_settings_are_shown_whole(tmp_path: Path) -> None:
    file = tmp_path / "status.toml"
    file.write_text('[serving]\npage_name = "Ours"\n')
    shown = CliRunner().invoke(app, ["check", "--settings", str(file)])
    assert shown.exit_code == 0
    assert 'page_name = "Ours"' in shown.output
    assert "interval_ms = 1000" in shown.output


def test_what_an_operator_remembers_is_private(tmp_path: Path) -> None:
    remember(tmp_path / "data" / "operators.sha256", KEY)
    assert (tmp_path / "data" / "operators.sha256").stat().st_mode & 0o077 == 0
